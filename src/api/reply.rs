//! Owns the envelope of every HTTP answer and its texts. Never touches a socket or a database.
//! Enter at [`Reply::ok`] and the constructors of refusals.

use super::frames::encode;
use crate::auth::TokenError;
use crate::http::Method;
use serde::Serialize;
use serde_json::{Value, json};
use std::borrow::Cow;

/// An answer before it is bytes: status, headers beyond the usual, and the JSON envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// JSON; empty for 204.
    pub body: String,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    success: bool,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    data: T,
}

pub const DONE: &str = "Operación exitosa";
pub const CREATED: &str = "Creado exitosamente";
pub const UPDATED: &str = "Actualizado exitosamente";
const FAULTY: &str = "Error de solicitud";

impl Reply {
    #[must_use]
    pub fn ok<T: Serialize>(message: &str, data: T) -> Self {
        Self::success(200, message, data)
    }

    #[must_use]
    pub fn created<T: Serialize>(data: T) -> Self {
        Self::success(201, CREATED, data)
    }

    #[must_use]
    pub fn success<T: Serialize>(status: u16, message: &str, data: T) -> Self {
        Self::enveloped(status, message, None, data)
    }

    /// A page whose `count` also stands at the top level, where the mobile app looks for its badge.
    #[must_use]
    pub fn counted<T: Serialize>(message: &str, count: u64, data: T) -> Self {
        Self::enveloped(200, message, Some(count), data)
    }

    #[must_use]
    pub fn no_content() -> Self {
        Self { status: 204, headers: Vec::new(), body: String::new() }
    }

    fn enveloped<T: Serialize>(status: u16, message: &str, count: Option<u64>, data: T) -> Self {
        let success = status < 400;
        Self { status, headers: Vec::new(), body: encode(&Envelope { success, message, count, data }) }
    }

    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// 400 with the envelope's text for data that cannot be.
    #[must_use]
    pub fn invalid(data: Value) -> Self {
        Self::success(400, "Datos inválidos", data)
    }

    /// 400 about one field, in the incumbent's shape.
    #[must_use]
    pub fn invalid_field(field: &str, problem: &str) -> Self {
        Self::invalid(json!({ field: [problem] }))
    }

    /// A refusal that a call itself gives (not the framework): `data.error` says why.
    #[must_use]
    pub fn refused(status: u16, error: &str) -> Self {
        Self::success(status, FAULTY, json!({ "error": error }))
    }

    /// 404; `what` as the incumbent says it ("No Match matches the given query.").
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::success(404, "Recurso no encontrado", json!({ "detail": what }))
    }

    #[must_use]
    pub fn method_not_allowed(method: Method, allow: &'static str) -> Self {
        let detail = match method {
            // Its name is not kept.
            Method::Other => "Method not allowed.".to_owned(),
            known => format!("Method \"{}\" not allowed.", known.as_str()),
        };
        Self::success(405, FAULTY, json!({ "detail": detail })).with_header("Allow", allow)
    }

    #[must_use]
    pub fn unsupported_media_type(media_type: &str) -> Self {
        let shown: String = media_type.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(80).collect();
        Self::success(415, FAULTY, json!({ "detail": format!("Unsupported media type \"{shown}\" in request.") }))
    }

    /// Any other refusal of the server itself.
    #[must_use]
    pub fn faulty(status: u16, detail: &str) -> Self {
        Self::success(status, FAULTY, json!({ "detail": detail }))
    }

    #[must_use]
    pub fn too_large(max: usize) -> Self {
        Self::faulty(413, &format!("The body may have {max} bytes."))
    }

    #[must_use]
    pub fn too_many(retry_after_s: u64) -> Self {
        Self::success(429, "Demasiadas solicitudes", json!({ "detail": "Request was throttled." }))
            .with_header("Retry-After", retry_after_s.max(1).to_string())
    }

    #[must_use]
    pub fn unavailable(detail: &str, retry_after_s: u64) -> Self {
        Self::success(503, "Servicio no disponible", json!({ "detail": detail }))
            .with_header("Retry-After", retry_after_s.max(1).to_string())
    }

    /// 403 of the framework: a good token of the wrong kind.
    #[must_use]
    pub fn forbidden() -> Self {
        Self::success(
            403,
            "Permiso denegado",
            json!({ "detail": "You do not have permission to perform this action." }),
        )
    }

    #[must_use]
    pub fn unauthorized(why: &Unauthorized) -> Self {
        let data = match why {
            Unauthorized::Missing => json!({ "detail": "Authentication credentials were not provided." }),
            Unauthorized::BadHeader => json!({
                "detail": "Authorization header must contain two space-delimited values",
                "code": "bad_authorization_header",
            }),
            Unauthorized::Token(TokenError::NoUser) => json!({
                "detail": "Token contained no recognizable user identification",
                "code": "token_not_valid",
            }),
            Unauthorized::Token(error) => json!({
                "detail": "Given token not valid for any token type",
                "code": "token_not_valid",
                "messages": [{ "token_class": "AccessToken", "token_type": "access", "message": error.message() }],
            }),
            Unauthorized::Refresh(error) => json!({ "detail": error.message(), "code": "token_not_valid" }),
            Unauthorized::NoAccount => json!({ "detail": "No active account found with the given credentials" }),
            Unauthorized::UserGone => json!({ "detail": "User not found", "code": "user_not_found" }),
            Unauthorized::UserInactive => json!({ "detail": "User is inactive", "code": "user_inactive" }),
        };
        Self::success(401, "Token de autenticación requerido", data)
            .with_header("WWW-Authenticate", "Bearer error=\"invalid_token\"")
    }
}

/// Why a caller is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unauthorized {
    Missing,
    BadHeader,
    Token(TokenError),
    /// The token given to `/api/refresh/`.
    Refresh(TokenError),
    /// A login that is refused, whatever the reason.
    NoAccount,
    UserGone,
    UserInactive,
}
