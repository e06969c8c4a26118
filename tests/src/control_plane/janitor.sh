# Waits for the death of the process that writes to it, and then removes what
# that process leaves: processes and a directory.
#
# usage: sh -c "$(cat janitor.sh)" janitor DIRECTORY
#
# It reads lines: "+ PID" and "- PID" for a process that came and went, and
# "keep" when the log files shall stay.
directory=$1
running=
keep=

while read -r word pid; do
  case $word in
    +) running="$running $pid" ;;
    -)
      others=
      for other in $running; do
        [ "$other" = "$pid" ] || others="$others $other"
      done
      running=$others
      ;;
    keep) keep=1 ;;
  esac
done

for pid in $running; do
  kill -KILL "$pid" 2>/dev/null
done

# A process that is being killed may still add a file.
for attempt in 1 2 3 4 5 6 7 8 9 10; do
  if [ -n "$keep" ]; then
    find "$directory" -mindepth 1 -maxdepth 1 ! -name logs -exec rm -rf {} + 2>/dev/null && exit
  else
    rm -rf "$directory" 2>/dev/null && exit
  fi
  sleep 0.2
done
