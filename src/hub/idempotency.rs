//! Owns what makes two requests the same: the caller's `Idempotency-Key`, and a fingerprint of path and body. Never keeps
//! an answer (storage does, in the transaction that made it). Enter at `idempotency`.

use super::connection::Admitted;
use crate::api::reply::Reply;
use crate::api::routes::Route;
use crate::auth::Caller;
use crate::http::{Method, Request};
use crate::storage::job::Idempotency;
use aws_lc_rs::digest;

const IDEMPOTENCY_KEY_MAX: usize = 128;

/// In place of a body that is too large to be read: all these are alike.
const TOO_LARGE: &[u8] = b"\0";

/// What was asked, and the key under which its refusal is kept, if it is, where the body is too large.
pub(super) fn key_of_unread(
    reply: &Reply,
    request: &Request<'_>,
    asked: Option<Admitted>,
) -> Option<(Admitted, Idempotency)> {
    let asked = asked.filter(|_| matches!(reply.status, 403 | 413 | 415))?;
    Some((asked, idempotency(asked.route, asked.caller, request, TOO_LARGE).ok()??))
}

/// The `Idempotency-Key` of a POST.
pub(super) fn idempotency(
    route: Route,
    caller: Caller,
    request: &Request<'_>,
    body: &[u8],
) -> Result<Option<Idempotency>, Reply> {
    // What these answer is secret, and not kept.
    if route.resource.is_sign_in() || route.method != Method::Post || request.header_count("idempotency-key") == 0 {
        return Ok(None);
    }
    let key = request.header("idempotency-key").unwrap_or_default();
    let printable = key.bytes().all(|b| (0x20..0x7f).contains(&b));
    if request.header_count("idempotency-key") > 1 || key.is_empty() || key.len() > IDEMPOTENCY_KEY_MAX || !printable {
        return Err(Reply::faulty(400, "Idempotency-Key must be 1 to 128 printable ASCII characters, once."));
    }
    let mut digest = digest::Context::new(&digest::SHA256);
    digest.update(request.path.trim_end_matches('/').as_bytes());
    digest.update(&[0]);
    digest.update(body);
    let fingerprint = digest.finish().as_ref().first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
    let caller = match caller {
        Caller::User(user) => user.0,
        Caller::Service => 0,
    };
    Ok(Some(Idempotency { caller, key: key.to_owned(), fingerprint }))
}
