//! Agents that prove their node with a service-account token, the TokenReviews that takes, and kubelet certificates beside them.

#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use assay_agent::link::{LinkConfig, LinkEndpoint, report_once, run_link};
use assay_scheduler::fleet::ca::DevCa;
use assay_scheduler::fleet::{
    Audit, AuthError, Authenticator, FleetEvent, Identity, Proof, Shown, TokenBinding,
};
use assay_scheduler::kube::token_review::{Clock, TokenAuthenticator, TokenReviewConfig};
use assay_shared::NodeName;
use assay_shared::protocol::{Credential, RefusalReason};
use assay_tests::fleet::{Fleet, config, eventually, report, within};
use assay_tests::token_reviews::{
    AUDIENCE, Health, TestClock, Token, TokenReviewApi, USER, review_config, vouches,
};
use serde_json::{Value, json};
use tokio::sync::watch;

const AT_ONCE: Duration = Duration::ZERO;

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

/// What an authenticator makes of a token that is shown in the name of a node.
async fn shown(to: &dyn Authenticator, token: &str, claimed: &str) -> Result<Identity, AuthError> {
    let credential = Credential::Token(token.to_owned());
    let address = ([127, 0, 0, 1], 1).into();
    let shown = Shown { claimed: &node(claimed), certificates: &[], credential: &credential, address };
    within("a verdict", to.authenticate(shown)).await.unwrap()
}

fn reason(verdict: Result<Identity, AuthError>) -> Result<NodeName, RefusalReason> {
    verdict.map(|identity| identity.node).map_err(|error| error.reason)
}

/// A sound answer with one part of it replaced.
fn but(pointer: &str, value: Value) -> Value {
    let mut status = vouches("node-a");
    *status.pointer_mut(pointer).unwrap() = value;
    status
}

#[tokio::test]
async fn only_the_api_servers_word_lets_an_agent_in() -> anyhow::Result<()> {
    let api = TokenReviewApi::start(AT_ONCE).await?;
    let tokens = TokenAuthenticator::new(api.client()?, review_config());
    let token = api.knows(&Token::of("node-a"), vouches("node-a"));
    let identity = shown(&tokens, &token, "node-a").await?;
    assert_eq!(identity.node, node("node-a"));
    let binding = TokenBinding {
        pod: "agent-x".to_owned(),
        pod_uid: "p-1".to_owned(),
        node_uid: "n-1".to_owned(),
        credential_id: String::new(),
    };
    assert_eq!(identity.proof, Proof::Token(binding));
    assert!(!format!("{identity:?} {tokens:?}").contains(&token));
    let asked = api.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0]["spec"], json!({"audiences": [AUDIENCE], "token": token}));

    // Tokens that say the right things of themselves, of which the API server says something else.
    let extra = "/user/extra/authentication.kubernetes.io~1node-name";
    let cases = [
        (json!({"authenticated": false, "error": "token has expired"}), RefusalReason::TokenInvalid),
        (json!({}), RefusalReason::TokenInvalid),
        (but("/audiences", json!(["https://kubernetes.default.svc"])), RefusalReason::WrongAudience),
        (but("/audiences", json!([])), RefusalReason::WrongAudience),
        (but("/user/username", json!(format!("{USER}-2"))), RefusalReason::WrongServiceAccount),
        (but("/user/username", json!("system:node:node-a")), RefusalReason::WrongServiceAccount),
        (but("/user/extra", json!({})), RefusalReason::NodeClaimAbsent),
        (but(extra, json!(["node-b"])), RefusalReason::NodeClaimMismatch),
    ];
    for (number, (status, expected)) in (1..).zip(cases) {
        let token = api.knows(&Token { number, ..Token::of("node-a") }, status.clone());
        assert_eq!(reason(shown(&tokens, &token, "node-a").await), Err(expected), "{status}");
    }
    assert_eq!(api.asked().len(), 9);

    // Tokens that speak against themselves: nobody is asked, whatever would be answered.
    let other = |change: fn(&mut Token)| {
        let mut token = Token { number: 100, ..Token::of("node-a") };
        change(&mut token);
        api.knows(&token, vouches("node-a"))
    };
    let cases = [
        (other(|token| "other".clone_into(&mut token.audience)), RefusalReason::WrongAudience),
        (other(|token| token.user.push('x')), RefusalReason::WrongServiceAccount),
        (other(|token| token.node = Some("node-b".to_owned())), RefusalReason::NodeClaimMismatch),
        (other(|token| token.node = None), RefusalReason::NodeClaimAbsent),
        ("hunter2".to_owned(), RefusalReason::TokenInvalid),
    ];
    for (token, expected) in cases {
        let error = shown(&tokens, &token, "node-a").await.unwrap_err();
        assert_eq!(error.reason, expected);
        assert!(!error.detail.contains(&token), "{error}");
    }
    assert_eq!(api.asked().len(), 9);
    assert_eq!((tokens.counts().answered, tokens.counts().unasked), (9, 5));
    Ok(())
}

#[tokio::test]
async fn a_verdict_is_used_again_for_a_minute_unless_the_token_expires() -> anyhow::Result<()> {
    let api = TokenReviewApi::start(AT_ONCE).await?;
    let clock = TestClock::behind(Duration::ZERO);
    let tokens = TokenAuthenticator::with_clock(api.client()?, review_config(), clock.clone());
    let good = api.knows(&Token::of("node-a"), vouches("node-a"));
    let bad = api.knows(&Token { number: 1, ..Token::of("node-a") }, json!({"authenticated": false}));
    for _ in 0..3 {
        assert_eq!(reason(shown(&tokens, &good, "node-a").await), Ok(node("node-a")));
        assert_eq!(reason(shown(&tokens, &bad, "node-a").await), Err(RefusalReason::TokenInvalid));
        // A verdict that is kept is no word for another node.
        let other = shown(&tokens, &good, "node-b").await;
        assert_eq!(reason(other), Err(RefusalReason::NodeClaimMismatch));
        clock.pass(Duration::from_secs(19));
    }
    assert_eq!((api.asked().len(), tokens.counts().cached), (2, 4));
    clock.pass(Duration::from_secs(3));
    api.knows(&Token::of("node-a"), json!({"authenticated": false, "error": "the pod is gone"}));
    assert_eq!(reason(shown(&tokens, &good, "node-a").await), Err(RefusalReason::TokenInvalid));
    assert_eq!(api.asked().len(), 3, "a minute later it is asked again");

    let short = Token { life: Duration::from_secs(90), number: 2, ..Token::of("node-a") };
    let short = api.knows(&short, vouches("node-a"));
    let identity = shown(&tokens, &short, "node-a").await?;
    let believed = identity.valid_until.unwrap().duration_since(clock.wall())?;
    assert_eq!(believed, Duration::from_secs(60), "30 s are left of it, and its verdict holds for a minute");
    clock.pass(Duration::from_secs(40));
    shown(&tokens, &short, "node-a").await?;
    assert_eq!(api.asked().len(), 5, "it expired, so its verdict no longer counts");

    let long = Token { life: Duration::from_secs(365 * 24 * 3600), number: 3, ..Token::of("node-a") };
    let long = api.knows(&long, vouches("node-a"));
    let identity = shown(&tokens, &long, "node-a").await?;
    let believed = identity.valid_until.unwrap().duration_since(clock.wall())?;
    assert_eq!(believed, Duration::from_secs(3600), "for it may be taken back");
    Ok(())
}

#[tokio::test]
async fn connections_of_tokens_of_one_moment_do_not_end_in_another() -> anyhow::Result<()> {
    let api = TokenReviewApi::start(AT_ONCE).await?;
    let clock = TestClock::behind(Duration::ZERO);
    let tokens = TokenAuthenticator::with_clock(api.client()?, review_config(), clock.clone());
    let mut ends = Vec::new();
    for number in 0..50 {
        let name = format!("node-{number}");
        let life = Duration::from_secs(2000);
        let token = api.knows(&Token { life, ..Token::of(&name) }, vouches(&name));
        let until = shown(&tokens, &token, &name).await?.valid_until.unwrap();
        let left = until.duration_since(clock.wall())?;
        assert!(left > Duration::from_secs(1750) && left <= life, "{left:?}");
        ends.push(left.as_secs() / 20);
    }
    ends.sort_unstable();
    ends.dedup();
    assert!(ends.len() > 5, "spread over a tenth of what was left: {ends:?}");
    Ok(())
}

#[tokio::test]
async fn an_api_server_that_cannot_be_asked_is_a_reason_of_its_own() -> anyhow::Result<()> {
    let api = TokenReviewApi::start(AT_ONCE).await?;
    let settings = TokenReviewConfig { deadline: Duration::from_millis(300), ..review_config() };
    let tokens = TokenAuthenticator::new(api.client()?, settings);
    let token = api.knows(&Token::of("node-a"), vouches("node-a"));
    let cases = [
        (Health::Fails(403), "it answered 403 Unwell"),
        (Health::Fails(500), "it answered 500 Unwell"),
        (Health::Fails(429), "it did not answer in time"),
        (Health::Hangs, "it did not answer in time"),
    ];
    for (health, expected) in cases {
        api.is(health);
        let error = shown(&tokens, &token, "node-a").await.unwrap_err();
        assert_eq!(error.reason, RefusalReason::ValidatorUnavailable);
        assert_eq!(error.detail, format!("the API server could not be asked about the token: {expected}"));
    }
    api.is(Health::Sound);
    assert_eq!(reason(shown(&tokens, &token, "node-a").await), Ok(node("node-a")), "that is not remembered");
    assert_eq!((tokens.counts().failed, tokens.counts().answered), (4, 1));

    let client = api.client()?;
    drop(api);
    let tokens = TokenAuthenticator::new(client, review_config());
    let error = shown(&tokens, &token, "node-a").await.unwrap_err();
    assert_eq!(error.reason, RefusalReason::ValidatorUnavailable);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_is_asked_few_questions_at_once() -> anyhow::Result<()> {
    let api = TokenReviewApi::start(Duration::from_millis(20)).await?;
    let settings =
        TokenReviewConfig { reviews_at_once: 3, deadline: Duration::from_secs(60), ..review_config() };
    let tokens = Arc::new(TokenAuthenticator::new(api.client()?, settings));
    let agents = (0..30).map(|number| {
        let name = format!("node-{number}");
        let token = api.knows(&Token::of(&name), vouches(&name));
        let tokens = Arc::clone(&tokens);
        tokio::spawn(async move { shown(&*tokens, &token, &name).await })
    });
    for agent in agents.collect::<Vec<_>>() {
        agent.await??;
    }
    assert_eq!((api.asked().len(), api.most_at_once()), (30, 3));
    Ok(())
}

/// An agent whose token lies in a directory.
fn agent(fleet: &Fleet, directory: &Path, name: &str, token: &str) -> anyhow::Result<LinkConfig> {
    let path = directory.join(format!("{name}.token"));
    std::fs::write(&path, token)?;
    fleet.agent_with_token(name, &path)
}

/// What an agent of this node says after one report; empty where that got through.
async fn once(link: LinkConfig) -> anyhow::Result<String> {
    let name = link.node.as_str().to_owned();
    let ended = within("an answer", report_once(link, LinkEndpoint::bind()?, move || report(&name))).await?;
    Ok(ended.err().map(|error| error.to_string()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_enforces_takes_the_right_token_and_no_other() -> anyhow::Result<()> {
    let api = TokenReviewApi::start(AT_ONCE).await?;
    let settings = TokenReviewConfig { deadline: Duration::from_millis(500), ..review_config() };
    let tokens = Arc::new(TokenAuthenticator::new(api.client()?, settings));
    let mut fleet = Fleet::start_with(config(), DevCa::create()?, tokens)?;
    let directory = tempfile::tempdir()?;
    let good = api.knows(&Token::of("node-a"), vouches("node-a"));
    assert_eq!(once(agent(&fleet, directory.path(), "node-a", &good)?).await?, "");
    assert!(matches!(fleet.event().await?, FleetEvent::Connected { node, .. } if node.as_str() == "node-a"));
    assert!(matches!(fleet.event().await?, FleetEvent::Report { .. }));
    fleet.ignore_events();

    let revoked = api.knows(&Token { number: 1, ..Token::of("node-a") }, json!({"authenticated": false}));
    let audience = Token { audience: "other".to_owned(), ..Token::of("node-a") }.text();
    let account = Token { user: format!("{USER}-2"), ..Token::of("node-a") }.text();
    let cases = [
        ("node-b", good.clone(), RefusalReason::NodeClaimMismatch),
        ("node-a", revoked, RefusalReason::TokenInvalid),
        ("node-a", audience, RefusalReason::WrongAudience),
        ("node-a", account, RefusalReason::WrongServiceAccount),
        ("node-a", Token { node: None, ..Token::of("node-a") }.text(), RefusalReason::NodeClaimAbsent),
    ];
    for (name, token, expected) in cases {
        let said = once(agent(&fleet, directory.path(), name, &token)?).await?;
        assert!(said.starts_with(&format!("refused by the scheduler: {expected}: ")), "{said}");
        assert!(!said.contains(&token));
        assert_eq!(fleet.server.counters().refused(expected), 1);
    }
    api.is(Health::Hangs);
    let unknown = Token { number: 7, ..Token::of("node-a") }.text();
    let said = once(agent(&fleet, directory.path(), "node-a", &unknown)?).await?;
    assert!(said.starts_with("refused by the scheduler: validator_unavailable: "), "{said}");

    // The report of an agent that is in may still not be about another node.
    api.is(Health::Sound);
    let link = agent(&fleet, directory.path(), "node-a", &good)?;
    let ended = report_once(link, LinkEndpoint::bind()?, || report("node-b")).await;
    assert!(ended.unwrap_err().to_string().contains("node_mismatch"));
    assert_eq!(fleet.server.counters().refused(RefusalReason::NodeMismatch), 1);
    // Nor is a certificate taken, of whomever it is.
    let said = once(fleet.agent("node-a")?).await?;
    assert!(said.starts_with("refused by the scheduler: no_credential: "), "{said}");
    assert_eq!(fleet.server.counters().tolerations().map(|(_, count)| count).sum::<u64>(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_under_audit_takes_everybody_and_counts_whom_it_should_not() -> anyhow::Result<()> {
    let api = TokenReviewApi::start(AT_ONCE).await?;
    let settings = TokenReviewConfig { deadline: Duration::from_millis(500), ..review_config() };
    let strict = Arc::new(TokenAuthenticator::new(api.client()?, settings));
    let mut fleet = Fleet::start_with(config(), DevCa::create()?, Arc::new(Audit::new(strict)))?;
    fleet.ignore_events();
    let directory = tempfile::tempdir()?;
    let good = api.knows(&Token::of("node-a"), vouches("node-a"));
    let wrong = Token { audience: "other".to_owned(), ..Token::of("node-a") }.text();
    let cases = [
        ("node-a", good.clone(), None),
        ("node-b", good, Some(RefusalReason::NodeClaimMismatch)),
        ("node-a", wrong, Some(RefusalReason::WrongAudience)),
        ("node-a", Token { number: 9, ..Token::of("node-a") }.text(), Some(RefusalReason::TokenInvalid)),
    ];
    let mut expected_count = 0;
    for (name, token, expected) in cases {
        assert_eq!(once(agent(&fleet, directory.path(), name, &token)?).await?, "", "{expected:?}");
        expected_count += u64::from(expected.is_some());
        let counters = fleet.server.counters();
        assert_eq!(counters.tolerations().map(|(_, count)| count).sum::<u64>(), expected_count);
        assert_eq!(expected.map_or(1, |reason| counters.tolerated(reason)), 1);
    }
    assert_eq!(once(fleet.agent("node-c")?).await?, "", "an agent that has no token yet");
    assert_eq!(fleet.server.counters().tolerated(RefusalReason::NoCredential), 1);
    api.is(Health::Hangs);
    let unknown = Token { number: 7, ..Token::of("node-a") }.text();
    assert_eq!(once(agent(&fleet, directory.path(), "node-a", &unknown)?).await?, "");
    assert_eq!(fleet.server.counters().tolerated(RefusalReason::ValidatorUnavailable), 1);
    assert_eq!(fleet.server.counters().refusals().map(|(_, count)| count).sum::<u64>(), 0);

    // It is known of them, for as long as they are connected.
    let client = fleet.client("node-d").await?.welcomed("node-d", "boot-1").await?;
    let connected = fleet.server.connected();
    let proof = connected.iter().find(|agent| agent.node.as_str() == "node-d").map(|agent| &*agent.proof);
    assert!(matches!(proof, Some(Proof::Missing(AuthError { reason: RefusalReason::NoCredential, .. }))));
    drop(client);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_comes_back_with_the_token_of_the_day() -> anyhow::Result<()> {
    let api = TokenReviewApi::start(AT_ONCE).await?;
    // A verdict holds for a minute at least; by this clock all but two seconds of it are over.
    let clock = TestClock::behind(Duration::from_secs(58));
    let tokens = TokenAuthenticator::with_clock(api.client()?, review_config(), clock.clone());
    let mut fleet = Fleet::start_with(config(), DevCa::create()?, Arc::new(tokens))?;
    let directory = tempfile::tempdir()?;
    let short = Token { life: AT_ONCE, ..Token::of("node-a") };
    let first = api.knows(&short, vouches("node-a"));
    let link = agent(&fleet, directory.path(), "node-a", &first)?;
    let (stop, stopped) = watch::channel(false);
    let link = tokio::spawn(run_link(link, LinkEndpoint::bind()?, || report("node-a"), stopped));
    while !matches!(fleet.event().await?, FleetEvent::Report { .. }) {}

    // The kubelet renews the file; the connection ends when the first token does.
    let second = api.knows(&Token { number: 2, ..Token::of("node-a") }, vouches("node-a"));
    std::fs::write(directory.path().join("node-a.token"), &second)?;
    assert!(matches!(fleet.event().await?, FleetEvent::Disconnected { replaced: false, .. }));
    assert!(matches!(fleet.event().await?, FleetEvent::Connected { .. }));
    let asked = api.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1]["spec"]["token"], second);
    let agents = fleet.server.connected();
    let [agent] = agents.as_slice() else { bail!("expected one agent, found {agents:?}") };
    assert_eq!(agent.generation, Some(1), "what it reported before is still known");
    stop.send_replace(true);
    link.await??;
    eventually("its leave", || fleet.server.counters().connected == 0).await?;
    assert_eq!(fleet.server.counters().refusals().map(|(_, count)| count).sum::<u64>(), 0);
    Ok(())
}
