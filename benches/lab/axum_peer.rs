//! Owns the peer: axum, tokio and SQLite as their documentation shows them, doing the same job with one commit a like and
//! without receipts, backlog, limits or logs. Enter at [`serve`].

use super::SECRET;
use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use axum::serve::ListenerExt;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use tokio::sync::mpsc;

struct App {
    feeds: RwLock<HashMap<i64, mpsc::Sender<Utf8Bytes>>>,
    key: DecodingKey,
    database: Mutex<rusqlite::Connection>,
    /// tungstenite takes 128 KiB a socket unless it is told otherwise.
    read_buffer: Option<usize>,
}

#[derive(Deserialize)]
struct Claims {
    user_id: serde_json::Value,
}

#[derive(Deserialize)]
struct Credentials {
    token: String,
}

/// In the folder that it is started in.
pub(super) fn serve(kind: &str) {
    let database = rusqlite::Connection::open("axum.db").unwrap();
    let schema = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
        CREATE TABLE notification (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, tenant INTEGER NOT NULL, body TEXT NOT NULL);
        CREATE INDEX inbox ON notification (owner, id);";
    database.execute_batch(schema).unwrap();
    let app = Arc::new(App {
        feeds: RwLock::default(),
        key: DecodingKey::from_secret(SECRET.as_bytes()),
        database: Mutex::new(database),
        read_buffer: (kind == "axum-4k").then_some(4_096),
    });
    let router = Router::new()
        .route("/ws/property-notifications/{user}/", any(connect))
        .route("/api/properties/{id}/like/", post(like))
        .with_state(app);
    tokio::runtime::Builder::new_multi_thread().enable_io().build().unwrap().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", serde_json::json!({ "listen": [listener.local_addr().unwrap()] }));
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        axum::serve(listener, router).await.unwrap();
    });
}

fn user_of(app: &App, token: &str) -> Option<i64> {
    let claims = decode::<Claims>(token, &app.key, &Validation::new(Algorithm::HS256)).ok()?.claims;
    claims.user_id.as_str()?.parse().ok()
}

async fn connect(
    State(app): State<Arc<App>>,
    Path(user): Path<i64>,
    Query(credentials): Query<Credentials>,
    upgrade: WebSocketUpgrade,
) -> Response {
    if user_of(&app, &credentials.token) != Some(user) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let upgrade = match app.read_buffer {
        Some(size) => upgrade.read_buffer_size(size),
        None => upgrade,
    };
    upgrade.on_upgrade(move |socket| feed(app, user, socket))
}

async fn feed(app: Arc<App>, user: i64, mut socket: WebSocket) {
    let (sender, mut frames) = mpsc::channel(64);
    app.feeds.write().unwrap().insert(user, sender);
    let greeting = format!(r#"{{"type":"connection_established","user_id":{user}}}"#);
    if socket.send(Message::Text(greeting.into())).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            frame = frames.recv() => match frame {
                Some(text) if socket.send(Message::Text(text)).await.is_ok() => {}
                _ => break,
            },
            said = socket.recv() => match said {
                Some(Ok(_)) => {}
                _ => break,
            },
        }
    }
}

async fn like(State(app): State<Arc<App>>, Path(property): Path<i64>, headers: HeaderMap) -> Response {
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Some(tenant) = bearer.and_then(|token| user_of(&app, token)) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let tenant_json = serde_json::json!({"id": tenant, "username": format!("user{tenant}"),
        "email": format!("user{tenant}@example.com"), "first_name": "Ana", "last_name": format!("Rojas {tenant}"),
        "phone": "+59170000000", "user_type": "inquilino"});
    let body = serde_json::json!({"type": "property_like", "property_id": property,
        "property_title": format!("Departamento en Av. Siempre Viva {property}"), "interested_user": tenant_json,
        "timestamp": "2026-01-01T00:00:00.000Z", "notification_id": uuid::Uuid::now_v7()})
    .to_string();
    let (keeper, row) = (Arc::clone(&app), body.clone());
    let stored = tokio::task::spawn_blocking(move || {
        let database = keeper.database.lock().unwrap();
        let sql = "INSERT INTO notification (owner, tenant, body) VALUES (?, ?, ?)";
        database.prepare_cached(sql)?.execute((property, tenant, row))
    });
    if !matches!(stored.await, Ok(Ok(1))) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let feed = app.feeds.read().unwrap().get(&property).cloned();
    if let Some(feed) = feed {
        let _ = feed.send(body.into()).await;
    }
    axum::Json(serde_json::json!({"success": true, "data": {"status": "pending"}})).into_response()
}
