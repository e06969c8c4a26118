//! Answers that stop in the middle.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tower::BoxError;

/// An answer whose parts must not be too far apart.
#[derive(Debug)]
pub(super) struct IdleBody<B> {
    inner: Pin<Box<B>>,
    /// How long it may pause, and when it will have.
    pause: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl<B> IdleBody<B> {
    pub(super) fn new(inner: B, pause: Option<Duration>) -> Self {
        let pause = pause.map(|pause| (pause, Box::pin(tokio::time::sleep(pause))));
        Self { inner: Box::pin(inner), pause }
    }
}

impl<B> Body for IdleBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = this.inner.as_mut().poll_frame(context) {
            if let Some((pause, end)) = &mut this.pause {
                end.as_mut().reset(Instant::now() + *pause);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some((pause, end)) = &mut this.pause else { return Poll::Pending };
        ready!(end.as_mut().poll(context));
        Poll::Ready(Some(Err(late(format!("the API server paused its answer for {pause:?}")))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer that does not begin.
pub(super) fn no_answer(waited: Duration) -> BoxError {
    late(format!("the API server did not answer within {waited:?}"))
}

fn late(message: String) -> BoxError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, message).into()
}
