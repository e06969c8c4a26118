{{- define "assay.name" -}}
{{- default "assay" .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "assay.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: assay
{{- end -}}

{{- define "assay.selector" -}}
app.kubernetes.io/name: {{ include "assay.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "assay.image" -}}
{{ .root.Values.image.registry }}/{{ .name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end -}}

{{- define "assay.tlsSecret" -}}
{{ .Values.fleet.tls.existingSecret | default (printf "%s-fleet" (include "assay.name" .)) }}
{{- end -}}

{{- define "assay.agentsHost" -}}
{{ include "assay.name" . }}-agents.{{ .Release.Namespace }}.svc
{{- end -}}

{{- define "assay.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "assay.name" . }}
{{- end -}}

{{/* The class that is asked for, or is to be made, or is there already. */}}
{{- define "assay.gpuRuntimeClass" -}}
{{- with .Values.agent.gpu -}}
{{- if .runtimeClassName -}}
{{ .runtimeClassName }}
{{- else if or .createRuntimeClass (lookup "node.k8s.io/v1" "RuntimeClass" "" "nvidia") -}}
nvidia
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not root, nothing writable, no capability, no system call beyond the runtime's own list. */}}
{{- define "assay.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}
