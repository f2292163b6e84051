//! Owns the paths: which there are, which methods each takes, and who may call it. Never reads a body.
//! Enter at [`route`]; a new endpoint is a variant of [`Resource`], a line in `resource`, one in `calls`.

use super::command::{Act, Which};
use super::reply::Reply;
use crate::http::Method;
use crate::matching::{MatchId, PropertyId, UserId, parse_id};
use crate::notification::{Channel, NotificationId, parse_uuid};
use crate::web::File;

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Socket(Channel, UserId),
    Likes(PropertyId),
    Rejections(PropertyId),
    ActOnMatch(MatchId, Act),
    Match(MatchId),
    Matches,
    MyMatches,
    PendingRequests,
    Properties,
    Property(PropertyId),
    Notifications,
    Notification(Which),
    NotificationSummary,
    MarkRead(Which),
    MarkAllRead,
    Me,
    User(UserId),
    Login,
    Refresh,
    Live,
    Ready,
    File(File),
    /// The operator's: `/metrics`, and what his page draws.
    Metrics,
    Stats,
    /// What the server remembers of a notification's way; `habittod explain` asks.
    Explain(NotificationId),
}

/// Which listener a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Public,
    /// `server.admin_listen`
    Admin,
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Anyone,
    User,
    Service,
    UserOrService,
}

const GET: Method = Method::Get;
const POST: Method = Method::Post;
const PUT: Method = Method::Put;
const DELETE: Method = Method::Delete;

impl Resource {
    /// The methods it takes (HEAD follows from GET, OPTIONS goes without saying) and who may use each; for `Allow`, the
    /// whole list; and its template, for logs and metrics.
    fn calls(self) -> (&'static [(Method, Access)], &'static str, &'static str) {
        use Access::{Anyone, Service, User, UserOrService};
        const READ: &str = "GET, HEAD, OPTIONS";
        const ACT: &str = "POST, OPTIONS";
        match self {
            Self::Socket(Channel::Property, _) => {
                (&[(GET, User)], "GET, OPTIONS", "/ws/property-notifications/{user_id}/")
            }
            Self::Socket(Channel::Tenant, _) => (&[(GET, User)], "GET, OPTIONS", "/ws/tenant-notifications/{user_id}/"),
            Self::Likes(_) => (&[(POST, User)], ACT, "/api/properties/{id}/like/"),
            Self::Rejections(_) => (&[(POST, User)], ACT, "/api/properties/{id}/reject/"),
            Self::ActOnMatch(_, act) => (
                &[(POST, User)],
                ACT,
                match act {
                    Act::OwnerAccept => "/api/matches/{id}/owner_accept/",
                    Act::OwnerReject => "/api/matches/{id}/owner_reject/",
                    Act::Like => "/api/matches/{id}/like/",
                    Act::Accept => "/api/matches/{id}/accept/",
                    Act::Reject => "/api/matches/{id}/reject/",
                },
            ),
            Self::Match(_) => (&[(GET, User)], READ, "/api/matches/{id}/"),
            Self::Matches => (&[(PUT, Service)], "PUT, OPTIONS", "/api/matches/"),
            Self::MyMatches => (&[(GET, User)], READ, "/api/matches/my/"),
            Self::PendingRequests => (&[(GET, User)], READ, "/api/matches/pending_requests/"),
            Self::Properties => (&[(GET, User)], READ, "/api/properties/"),
            Self::Property(_) => (
                &[(GET, UserOrService), (PUT, Service), (DELETE, Service)],
                "GET, HEAD, PUT, DELETE, OPTIONS",
                "/api/properties/{id}/",
            ),
            Self::Notifications => (&[(GET, User), (POST, Service)], "GET, HEAD, POST, OPTIONS", "/api/notifications/"),
            Self::Notification(_) => (&[(GET, User)], READ, "/api/notifications/{id}/"),
            Self::NotificationSummary => (&[(GET, User)], READ, "/api/notifications/my/"),
            Self::MarkRead(_) => (&[(POST, User)], ACT, "/api/notifications/{id}/mark_as_read/"),
            Self::MarkAllRead => (&[(POST, User)], ACT, "/api/notifications/mark_all_as_read/"),
            Self::Me => (&[(GET, User)], READ, "/api/users/me/"),
            Self::User(_) => (
                &[(GET, Service), (PUT, Service), (DELETE, Service)],
                "GET, HEAD, PUT, DELETE, OPTIONS",
                "/api/users/{id}/",
            ),
            Self::Login => (&[(POST, Anyone)], ACT, "/api/login/"),
            Self::Refresh => (&[(POST, Anyone)], ACT, "/api/refresh/"),
            Self::Live => (&[(GET, Anyone)], READ, "/health/live"),
            Self::Ready => (&[(GET, Anyone)], READ, "/health/ready"),
            Self::File(file) => (&[(GET, Anyone)], READ, file.path()),
            Self::Metrics => (&[(GET, Anyone)], READ, "/metrics"),
            Self::Stats => (&[(GET, Anyone)], READ, "/stats.json"),
            Self::Explain(_) => (&[(GET, Anyone)], READ, "/explain/{id}"),
        }
    }

    /// The methods it takes, as `Allow` lists them.
    #[must_use]
    pub fn allow(self) -> &'static str {
        self.calls().1
    }

    /// Whether it gives tokens: for who has none yet.
    #[must_use]
    pub fn is_sign_in(self) -> bool {
        matches!(self, Self::Login | Self::Refresh)
    }

    /// The path with its parameters as names: a bounded set, fit for logs and metric labels.
    #[must_use]
    pub fn template(self) -> &'static str {
        self.calls().2
    }
}

/// A known path, a method that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub resource: Resource,
    /// `Get` for HEAD, too.
    pub method: Method,
    pub access: Access,
}

/// Path, then method: 404 or 405. `signs_in`: whether there are paths for that.
pub fn route(door: Door, signs_in: bool, method: Method, path: &str) -> Result<Route, Reply> {
    let resource = resource(door, path)
        .filter(|resource| signs_in || !resource.is_sign_in())
        .ok_or_else(|| Reply::not_found("Not found."))?;
    let asked = match (method, resource) {
        // A socket has no answer to show to HEAD.
        (Method::Head, Resource::Socket(..)) => Method::Head,
        (Method::Head, _) => GET,
        (other, _) => other,
    };
    if asked == Method::Options {
        return Ok(Route { resource, method, access: Access::Anyone });
    }
    match resource.calls().0.iter().find(|(takes, _)| *takes == asked) {
        Some((_, access)) => Ok(Route { resource, method: asked, access: *access }),
        None => Err(Reply::method_not_allowed(method, resource.allow())),
    }
}

fn resource(door: Door, path: &str) -> Option<Resource> {
    if path == "/" {
        return Some(Resource::File(if door == Door::Public { File::Page } else { File::OperatorPage }));
    }
    let bare = path.strip_suffix('/').unwrap_or(path);
    let path = bare.strip_prefix('/')?;
    // Seven segments are more than any path here has; what is longer cannot match.
    let mut segments = [""; 7];
    for (place, segment) in path.split('/').enumerate() {
        *segments.get_mut(place)? = segment;
    }
    let count = path.split('/').count();
    let segments = segments.get(..count)?;
    let property = |id: &str| PropertyId::parse(id);
    match (segments, door) {
        (["health", "live"], _) => Some(Resource::Live),
        (["health", "ready"], _) => Some(Resource::Ready),
        (["metrics"], Door::Admin) => Some(Resource::Metrics),
        (["stats.json"], Door::Admin) => Some(Resource::Stats),
        (["operator.js" | "operator.css"], Door::Admin) => File::of_operator(bare).map(Resource::File),
        (["explain", id], Door::Admin) => parse_id(id).map(|row| Resource::Explain(NotificationId(row))),
        (_, Door::Admin) => None,
        (["ws", "property-notifications", id], _) => Some(Resource::Socket(Channel::Property, UserId::parse(id)?)),
        (["ws", "tenant-notifications", id], _) => Some(Resource::Socket(Channel::Tenant, UserId::parse(id)?)),
        (["api", "properties"], _) => Some(Resource::Properties),
        (["api", "properties", id], _) => property(id).map(Resource::Property),
        (["api", "properties", id, "like"], _) => property(id).map(Resource::Likes),
        (["api", "properties", id, "reject"], _) => property(id).map(Resource::Rejections),
        (["api", "matches"], _) => Some(Resource::Matches),
        (["api", "matches", "my"], _) => Some(Resource::MyMatches),
        (["api", "matches", "pending_requests"], _) => Some(Resource::PendingRequests),
        (["api", "matches", id], _) => MatchId::parse(id).map(Resource::Match),
        (["api", "matches", id, act], _) => Some(Resource::ActOnMatch(MatchId::parse(id)?, act_of(act)?)),
        (["api", "notifications"], _) => Some(Resource::Notifications),
        (["api", "notifications", "my"], _) => Some(Resource::NotificationSummary),
        (["api", "notifications", "mark_all_as_read"], _) => Some(Resource::MarkAllRead),
        (["api", "notifications", id], _) => which(id).map(Resource::Notification),
        (["api", "notifications", id, "mark_as_read"], _) => which(id).map(Resource::MarkRead),
        (["api", "login"], _) => Some(Resource::Login),
        (["api", "refresh"], _) => Some(Resource::Refresh),
        (["api", "users", "me"], _) => Some(Resource::Me),
        (["api", "users", id], _) => UserId::parse(id).map(Resource::User),
        (["client" | "page", _] | ["api", "openapi.json" | "asyncapi.json"], _) => File::at(bare).map(Resource::File),
        _ => None,
    }
}

fn act_of(name: &str) -> Option<Act> {
    match name {
        "owner_accept" => Some(Act::OwnerAccept),
        "owner_reject" => Some(Act::OwnerReject),
        "like" => Some(Act::Like),
        "accept" => Some(Act::Accept),
        "reject" => Some(Act::Reject),
        _ => None,
    }
}

/// The integer, or the UUID in lower case.
fn which(id: &str) -> Option<Which> {
    parse_id(id).map(|row| Which::Row(NotificationId(row))).or_else(|| parse_uuid(id).map(Which::Uuid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: Method, path: &str) -> u16 {
        route(Door::Public, true, method, path).map_or_else(|refusal| refusal.status, |_| 200)
    }

    #[test]
    fn paths_and_methods() {
        let uuid = "0197a2b4-0000-7000-8000-000000000001";
        let cases = [
            (POST, "/api/properties/7/like/", 200),
            (POST, "/api/properties/7/like", 200),
            (GET, "/api/properties/7/like/", 405),
            (POST, "/api/properties/07/like/", 404),
            (POST, "/api/properties/+7/like/", 404),
            (POST, "/api/properties/7/like//", 404),
            (POST, "//api/properties/7/like/", 404),
            (POST, "/api/properties/9223372036854775808/like/", 404),
            (POST, "/api/matches/1/steal/", 404),
            (GET, "/api/matches/", 405),
            (POST, "/api/login", 200),
            (Method::Head, "/api/refresh/", 405),
            (POST, "/api/token/refresh/", 404),
            (PUT, "/api/matches/", 200),
            (Method::Head, "/api/notifications/", 200),
            (Method::Head, "/ws/tenant-notifications/1/", 405),
            (Method::Options, "/api/notifications/", 200),
            (Method::Options, "/api/nothing/", 404),
            (Method::Patch, "/api/users/1/", 405),
            (Method::Other, "/health/live", 405),
            (GET, &format!("/api/notifications/{uuid}/"), 200),
            (GET, &format!("/api/notifications/{}/", uuid.to_uppercase()), 404),
            (GET, "/api/notifications/0/", 404),
            (GET, "/ws/property-notifications/01/", 404),
            (GET, "/", 200),
            (Method::Head, "/", 200),
            (POST, "/", 405),
            (GET, "//", 404),
            (GET, "", 404),
            (GET, "/client/habitto.js", 200),
            (GET, "/client/nothing.js", 404),
            (GET, "/page/../config.toml", 404),
            (GET, "/a/b/c/d/e/f/g/h/i/j", 404),
        ];
        for (method, path, expected) in cases {
            assert_eq!(status(method, path), expected, "{method:?} {path}");
        }
        assert!(route(Door::Admin, true, GET, "/health/ready").is_ok());
        for method in [GET, POST, Method::Options] {
            assert_eq!(route(Door::Public, false, method, "/api/login/").unwrap_err().status, 404);
            assert_eq!(route(Door::Admin, true, method, "/api/login/").unwrap_err().status, 404);
        }
        for path in ["/api/users/me/", "/client/habitto.js"] {
            assert_eq!(route(Door::Admin, true, GET, path).unwrap_err().status, 404);
        }
        assert_eq!(route(Door::Admin, true, GET, "//").unwrap_err().status, 404);
        for path in ["/metrics", "/stats.json", "/", "/operator.js", "/operator.css"] {
            assert!(route(Door::Admin, true, GET, path).is_ok(), "{path}");
            assert_eq!(route(Door::Admin, true, POST, path).unwrap_err().status, 405, "{path}");
            assert_eq!(status(GET, path), if path == "/" { 200 } else { 404 }, "{path}");
        }
    }

    #[test]
    fn allow_lists_what_is_taken() {
        let refused = route(Door::Public, true, Method::Patch, "/api/properties/1/").unwrap_err();
        assert_eq!(refused.headers, [("Allow", "GET, HEAD, PUT, DELETE, OPTIONS".into())]);
        assert!(refused.body.contains("Method \\\"PATCH\\\" not allowed."), "{}", refused.body);
        let refused = route(Door::Public, true, Method::Other, "/api/properties/1/").unwrap_err();
        assert!(refused.body.contains("\"Method not allowed.\""), "{}", refused.body);
    }
}
