//! A request that carries a `request_id` and comes twice is carried out once.
//!
//! Clients repeat a request when they have not seen its answer. The answer is kept for a while
//! and given again; the same id with another request is an error. What must survive a restart
//! of the gateway (which sandbox a create made) is noted on the object as well.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::OnceCell;
use tonic::Status;

use crate::{errors, limits};

/// The requests of the last minutes.
#[derive(Default)]
pub(super) struct Requests(Mutex<HashMap<(&'static str, String), Remembered>>);

struct Remembered {
    request: Box<dyn Any + Send>,
    answer: Arc<OnceCell<Vec<u8>>>,
    since: Instant,
}

impl Requests {
    /// Carries out `call`, or gives the answer that it gave before. `request` is what must be
    /// the same the second time; it is kept, so it must not hold secrets.
    pub(super) async fn once<Q, R>(
        &self,
        method: &'static str,
        id: &str,
        request: Q,
        call: BoxFuture<'_, Result<R, Status>>,
    ) -> Result<R, Status>
    where
        Q: PartialEq + Send + 'static,
        R: Message + Default,
    {
        if id.is_empty() {
            return call.await;
        }
        if id.len() > limits::REQUEST_ID_BYTES {
            return Err(errors::invalid("request_id", format!("it has more than {} bytes", limits::REQUEST_ID_BYTES)));
        }
        let answer = self.remember(method, id, request)?;
        // A failed attempt leaves the cell empty: the next one is made again.
        let bytes = answer.get_or_try_init(|| async { call.await.map(|answer| answer.encode_to_vec()) }).await?;
        R::decode(bytes.as_slice()).map_err(|e| errors::internal(format!("a remembered answer cannot be read: {e}")))
    }

    fn remember<Q: PartialEq + Send + 'static>(
        &self,
        method: &'static str,
        id: &str,
        request: Q,
    ) -> Result<Arc<OnceCell<Vec<u8>>>, Status> {
        let mut known = self.0.lock();
        known.retain(|_, r| r.since.elapsed() < limits::REMEMBER_REQUEST);
        let key = (method, id.to_owned());
        if let Some(found) = known.get(&key) {
            return match found.request.downcast_ref::<Q>() {
                Some(before) if *before == request => Ok(found.answer.clone()),
                _ => Err(errors::invalid("request_id", "it was used for another request: use a new one for every request")),
            };
        }
        if known.len() >= limits::REMEMBERED_REQUESTS
            && let Some(oldest) = known.iter().min_by_key(|(_, r)| r.since).map(|(key, _)| key.clone())
        {
            known.remove(&oldest);
        }
        let answer = Arc::new(OnceCell::new());
        known.insert(key, Remembered { request: Box::new(request), answer: answer.clone(), since: Instant::now() });
        Ok(answer)
    }
}
