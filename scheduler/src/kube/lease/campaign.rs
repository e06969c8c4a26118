//! The election's I/O: the Lease object of `coordination.k8s.io/v1`.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::Leadership;
use super::elector::{Action, Elector, Record};

/// Pause after a call that failed.
const RETRY: Duration = Duration::from_secs(1);

/// What an election is about.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub lease: String,
}

/// Takes part in an election until `stop` turns true, and tells `leadership` what this scheduler is. Gives the lease up at
/// the end, so that another one need not wait for it to run out.
pub async fn campaign(
    client: Client,
    campaign: Campaign,
    mut elector: Elector,
    leadership: watch::Sender<Leadership>,
    mut stop: watch::Receiver<bool>,
) {
    let mut leases = Leases {
        api: Api::namespaced(client, &campaign.namespace),
        name: campaign.lease,
        began: Instant::now(),
        known: None,
    };
    while !*stop.borrow() {
        let turn = leases.turn(&mut elector).await;
        tell(&elector, &leases, &leadership);
        let mut pause = elector.pause(leases.now());
        if let Err(error) = turn {
            warn!(lease = leases.name, %error, "leader election");
            // A renewal that failed has little time.
            pause = pause.min(RETRY);
        }
        let pause = sleep(pause);
        tokio::pin!(pause);
        loop {
            // Leadership that runs out while the API server does not answer is told when it does.
            let runs_out = elector.leads(leases.now()).map(|(until, _)| leases.began + until);
            tokio::select! {
                () = &mut pause => break,
                changed = stop.changed() => {
                    if changed.is_err() || *stop.borrow() { break }
                }
                () = tokio::time::sleep_until(runs_out.unwrap_or_else(Instant::now)), if runs_out.is_some() => {
                    tell(&elector, &leases, &leadership);
                }
            }
        }
    }
    let led = elector.leads(leases.now()).is_some();
    leadership.send_replace(Leadership::Follower { leader: None });
    if led && let Err(error) = leases.resign(&mut elector).await {
        warn!(lease = leases.name, %error, "the lease could not be given up and will run out");
    }
}

fn tell(elector: &Elector, leases: &Leases, leadership: &watch::Sender<Leadership>) {
    let now = match elector.leads(leases.now()) {
        Some((until, epoch)) => Leadership::Leader { epoch, until: leases.began + until },
        None => Leadership::Follower { leader: elector.holder().map(str::to_owned) },
    };
    leadership.send_if_modified(|known| {
        let before = std::mem::replace(known, now.clone());
        match (&before, &now) {
            (Leadership::Leader { .. }, Leadership::Follower { leader }) => {
                warn!(lease = leases.name, ?leader, "no longer the leader");
            }
            (Leadership::Follower { .. }, Leadership::Leader { epoch, .. }) => {
                info!(lease = leases.name, epoch, "leading");
            }
            _ => {}
        }
        before != now
    });
}

/// Why a turn failed.
#[derive(Debug, thiserror::Error)]
enum TurnError {
    /// The API server said no, or could not be asked.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// It did not answer in time.
    #[error("no answer from the API server within {} s", .0.as_secs())]
    Late(Duration),
}

struct Leases {
    api: Api<Lease>,
    name: String,
    /// Origin of the elector's clock.
    began: Instant,
    /// The lease as it is, as long as that is ours and nothing speaks against it: to renew it is one call then.
    known: Option<Lease>,
}

impl Leases {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Looks at the lease and does what is to be done about it.
    async fn turn(&mut self, elector: &mut Elector) -> Result<(), TurnError> {
        let limit = elector.timing().request_timeout;
        let lease = match self.known.take().filter(|_| elector.leads(self.now()).is_some()) {
            Some(known) => Some(known),
            None => {
                let lease = in_time(limit, self.api.get_opt(&self.name)).await?;
                elector.observe(self.now(), lease.as_ref().map(record_of));
                lease
            }
        };
        let action = elector.decide(self.now());
        let sent = self.now();
        let written = match action {
            Action::Wait => return Ok(()),
            Action::Create => {
                let lease = self.lease(elector, None, 0, None);
                in_time(limit, self.api.create(&PostParams::default(), &lease)).await
            }
            Action::Update { resource_version, transitions, acquires } => {
                let acquired = lease.filter(|_| !acquires).and_then(|lease| lease.spec?.acquire_time);
                let lease = self.lease(elector, Some(resource_version), transitions, acquired);
                in_time(limit, self.api.replace(&self.name, &PostParams::default(), &lease)).await
            }
        };
        match written {
            Ok(lease) => {
                elector.written(sent, self.now(), record_of(&lease));
                self.known = Some(lease);
            }
            // Another one was faster; the next look shows who.
            Err(TurnError::Api(kube::Error::Api(status))) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Gives the lease up.
    async fn resign(&self, elector: &mut Elector) -> Result<(), TurnError> {
        let limit = elector.timing().request_timeout;
        let Some(mut lease) = in_time(limit, self.api.get_opt(&self.name)).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(elector.identity()) {
            spec.holder_identity = None;
            in_time(limit, self.api.replace(&self.name, &PostParams::default(), &lease)).await?;
        }
        elector.resigned();
        Ok(())
    }

    fn lease(
        &self,
        elector: &Elector,
        resource_version: Option<String>,
        transitions: u64,
        acquired: Option<MicroTime>,
    ) -> Lease {
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), resource_version, ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(elector.identity().to_owned()),
                lease_duration_seconds: i32::try_from(elector.timing().lease_duration.as_secs()).ok(),
                lease_transitions: Some(i32::try_from(transitions).unwrap_or(i32::MAX)),
                acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }
}

async fn in_time<T>(
    limit: Duration,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, TurnError> {
    timeout(limit, request).await.map_err(|_| TurnError::Late(limit))?.map_err(TurnError::Api)
}

fn record_of(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    let seconds =
        spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: spec.and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty()),
        duration: Duration::from_secs(seconds.unwrap_or(0)),
        transitions: spec
            .and_then(|spec| spec.lease_transitions)
            .and_then(|count| u64::try_from(count).ok())
            .unwrap_or(0),
        resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}
