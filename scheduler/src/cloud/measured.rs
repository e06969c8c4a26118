//! A cloud with a stopwatch: how long its answers take, and which are no.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use assay_core::model::NodeClaim;

use super::{ClassFacts, Cloud, CloudError, CloudFuture, CreateError, Instance};
use crate::kube::api::AKSNodeClassSpec;
use crate::web::Metrics;

/// What is said of an answer that is no cloud's own.
const UNANSWERED: &str = "CloudUnavailable";

/// A cloud whose calls are counted.
pub struct MeasuredCloud {
    cloud: Arc<dyn Cloud>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for MeasuredCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MeasuredCloud").field(&self.cloud).finish()
    }
}

impl MeasuredCloud {
    /// Counts the calls of `cloud`.
    #[must_use]
    pub fn new(cloud: Arc<dyn Cloud>, metrics: Arc<Metrics>) -> Self {
        Self { cloud, metrics }
    }

    async fn measure<T, E>(
        &self,
        (controller, method): (&str, &str),
        call: CloudFuture<'_, Result<T, E>>,
        word: impl Fn(&E) -> String,
    ) -> Result<T, E> {
        let begin = Instant::now();
        let answer = call.await;
        let error = answer.as_ref().err().map(word);
        self.metrics.cloud_called(controller, method, self.cloud.name(), begin.elapsed(), error.as_deref());
        answer
    }
}

fn unanswered(_: &CloudError) -> String {
    UNANSWERED.to_owned()
}

impl Cloud for MeasuredCloud {
    fn name(&self) -> &'static str {
        self.cloud.name()
    }

    fn create<'a>(&'a self, claim: &'a NodeClaim) -> CloudFuture<'a, Result<Instance, CreateError>> {
        let word = |error: &CreateError| match error {
            CreateError::Refused(refusal) => refusal.failure.to_string(),
            CreateError::Cloud(error) => unanswered(error),
        };
        Box::pin(self.measure(("nodeclaim.lifecycle", "Create"), self.cloud.create(claim), word))
    }

    fn delete<'a>(&'a self, claim: &'a str) -> CloudFuture<'a, Result<(), CloudError>> {
        Box::pin(self.measure(("nodeclaim.lifecycle", "Delete"), self.cloud.delete(claim), unanswered))
    }

    fn class<'a>(&'a self, spec: &'a AKSNodeClassSpec) -> CloudFuture<'a, Result<ClassFacts, CloudError>> {
        Box::pin(self.measure(("nodeclass", "Class"), self.cloud.class(spec), unanswered))
    }

    fn list(&self) -> CloudFuture<'_, Result<Vec<Instance>, CloudError>> {
        Box::pin(self.measure(("nodeclaim.garbagecollection", "List"), self.cloud.list(), unanswered))
    }
}
