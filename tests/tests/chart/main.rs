//! The Helm chart in `deploy/helm`, rendered and installed by Helm itself, against a real API server: what it makes is valid, its
//! accounts can do what they must and nothing else, and its policy holds the scheduler to what it may write to Nodes.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

mod installed;
mod policy;
mod rendered;
mod rights;

use assay_tests::control_plane::ControlPlane;
use assay_tests::control_plane::clients::{Identity, TokenFor};
use assay_tests::helm::Helm;
use assay_tests::serving::{NAMESPACE, ServeOptions};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;

/// The scheduler's account.
const ACCOUNT: &str = "assay";
/// The same as a user.
const USER: &str = "system:serviceaccount:assay-system:assay";

/// Helm, or the end of a test that cannot run without.
macro_rules! helm {
    () => {
        match assay_tests::helm::Helm::find().unwrap() {
            Some(helm) => helm,
            None => return,
        }
    };
}
use helm;

/// Installs the chart as an administrator does.
fn install(helm: &Helm, plane: &ControlPlane, values: &serde_json::Value) -> anyhow::Result<()> {
    helm.install(&plane.admin_kubeconfig(), NAMESPACE, values)
}

/// A scheduler that is nobody but its account.
async fn as_account(plane: &ControlPlane) -> anyhow::Result<ServeOptions> {
    let token = plane.token(&TokenFor::account(NAMESPACE, ACCOUNT)).await?;
    let kubeconfig = plane.kubeconfig_file("assay", &Identity::Token(token))?;
    Ok(ServeOptions { kubeconfig: Some(kubeconfig), ..ServeOptions::default() })
}

/// Sends a request as it is; the status and the text of the answer.
async fn send(
    client: &Client,
    method: &str,
    path: &str,
    kind: &str,
    body: &str,
) -> anyhow::Result<(u16, String)> {
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .body(Body::from(body.as_bytes().to_vec()))?;
    let answer = client.send(request).await?;
    let status = answer.status().as_u16();
    let text = answer.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}
