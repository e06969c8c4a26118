//! Running tests against a control plane, and reporting them as skipped where there is none.
//!
//! Starting one takes seconds, so the tests of a test program share one where they use namespaces and names of their own.

use std::borrow::Borrow;
use std::future::Future;

use anyhow::Context;
use tokio::sync::OnceCell;

use super::binaries::Missing;
use super::{ControlPlane, Options};
use crate::go::announce;

/// The control plane that the tests of this process share. It is never dropped: it goes with the process.
static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();

/// Runs a test against the control plane, with all components, that the tests of this program share.
///
/// # Panics
/// The test fails.
pub fn on_shared<Test>(test: Test)
where
    Test: AsyncFnOnce(&ControlPlane) -> anyhow::Result<()>,
{
    run(async { SHARED.get_or_try_init(|| ControlPlane::start(Options::whole())).await }, test);
}

/// Runs a test against a control plane of its own.
///
/// # Panics
/// The test fails.
pub fn on_own<Test>(options: Options, test: Test)
where
    Test: AsyncFnOnce(&ControlPlane) -> anyhow::Result<()>,
{
    run(ControlPlane::start(options), test);
}

fn run<Plane, Test>(start: impl Future<Output = anyhow::Result<Plane>>, test: Test)
where
    Plane: Borrow<ControlPlane>,
    Test: AsyncFnOnce(&ControlPlane) -> anyhow::Result<()>,
{
    let ran = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start a runtime")
        .map(|runtime| runtime.block_on(carry_out(start, test)));
    match ran {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => panic!("{failure}"),
        Err(error) => panic!("{error:?}"),
    }
}

async fn carry_out<Plane, Test>(
    start: impl Future<Output = anyhow::Result<Plane>>,
    test: Test,
) -> Result<(), String>
where
    Plane: Borrow<ControlPlane>,
    Test: AsyncFnOnce(&ControlPlane) -> anyhow::Result<()>,
{
    let plane = match start.await {
        Ok(plane) => plane,
        Err(error) if error.is::<Missing>() && !must_run() => {
            skip(&error);
            return Ok(());
        }
        Err(error) => return Err(format!("{error:?}")),
    };
    let watched = Watched(plane.borrow());
    let Err(error) = test(watched.0).await else { return Ok(()) };
    let events = watched.0.warning_events().await.join("\n");
    Err(format!("{error:?}\n\n{events}\n{}", watched.0.trouble()))
}

/// Says what to look at when a test panics.
struct Watched<'plane>(&'plane ControlPlane);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.trouble());
        }
    }
}

/// Whether a missing control plane is a failure: a continuous build must not pass by leaving tests out.
#[must_use]
pub fn must_run() -> bool {
    std::env::var_os("CI").is_some_and(|ci| ci == "true")
}

/// The test harness knows no tests that find out for themselves that they cannot run, so this says it where it is seen.
fn skip(reason: &anyhow::Error) {
    let thread = std::thread::current();
    announce(&format!("skipped: {}: {reason:#}", thread.name().unwrap_or("a test")));
}
