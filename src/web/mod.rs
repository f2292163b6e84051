//! Owns what is served as it is, built into the binary: the page, the client module, the React hook, the descriptions
//! of the API, the operator's page; their names, types, tags and policies. Never makes any of it at run time. Enter at
//! [`File::at`] and [`File::response`].

use crate::http::{Request, Response};
use aws_lc_rs::digest;
use std::sync::LazyLock;

/// A file that is served as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    Page,
    Style,
    Main,
    Session,
    Views,
    Texts,
    Icon,
    Manifest,
    Client,
    Hook,
    OpenApi,
    AsyncApi,
    OperatorPage,
    OperatorScript,
    OperatorStyle,
}

/// What the page may load and do: its own files, its own server, itself in a frame (the demo's two people side by
/// side), and nothing written into it as HTML.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    manifest-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'self'; \
    require-trusted-types-for 'script'; trusted-types 'none'";
/// What the operator's page may: nothing but what its own listener serves.
const OPERATOR_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";

struct Embedded {
    file: File,
    path: &'static str,
    media_type: &'static str,
    body: &'static [u8],
}

macro_rules! embedded {
    ($files:ident: $($file:ident $path:literal $media_type:expr, $source:literal;)*) => {
        const $files: &[Embedded] = &[$(Embedded {
            file: File::$file,
            path: $path,
            media_type: $media_type,
            body: include_bytes!($source),
        }),*];
    };
}

embedded! { FILES:
    Page "/" HTML, "page/index.html";
    Style "/page/style.css" STYLE, "page/style.css";
    Main "/page/main.js" SCRIPT, "page/main.js";
    Session "/page/session.js" SCRIPT, "page/session.js";
    Views "/page/views.js" SCRIPT, "page/views.js";
    Texts "/page/texts.js" SCRIPT, "page/texts.js";
    Icon "/page/icon.svg" "image/svg+xml", "page/icon.svg";
    Manifest "/page/manifest.webmanifest" "application/manifest+json", "page/manifest.webmanifest";
    Client "/client/habitto.js" SCRIPT, "client/habitto.js";
    Hook "/client/useHabittoWebSocket.js" SCRIPT, "client/useHabittoWebSocket.js";
    OpenApi "/api/openapi.json" JSON, "../api/openapi.json";
    AsyncApi "/api/asyncapi.json" JSON, "../api/asyncapi.json";
}

// Behind `server.admin_listen`.
embedded! { OPERATORS:
    OperatorPage "/" HTML, "operator/index.html";
    OperatorScript "/operator.js" SCRIPT, "operator/operator.js";
    OperatorStyle "/operator.css" STYLE, "operator/operator.css";
}

fn all() -> impl Iterator<Item = &'static Embedded> {
    FILES.iter().chain(OPERATORS)
}

/// One strong tag a file, in the order of [`all`].
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let short = |digest: digest::Digest| digest.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    all()
        .map(|embedded| digest::digest(&digest::SHA256, embedded.body))
        .map(|digest| -> String { short(digest) })
        .map(|hex| format!("\"{hex}\""))
        .collect()
});

impl File {
    /// The file of this path.
    #[must_use]
    pub fn at(path: &str) -> Option<Self> {
        FILES.iter().find(|embedded| embedded.path == path).map(|embedded| embedded.file)
    }

    /// The operator's of this path.
    #[must_use]
    pub fn of_operator(path: &str) -> Option<Self> {
        OPERATORS.iter().find(|embedded| embedded.path == path).map(|embedded| embedded.file)
    }

    /// Its path, for logs.
    #[must_use]
    pub fn path(self) -> &'static str {
        self.embedded().map_or("", |(embedded, _)| embedded.path)
    }

    #[must_use]
    pub fn body(self) -> &'static [u8] {
        self.embedded().map_or(&[], |(embedded, _)| embedded.body)
    }

    fn embedded(self) -> Option<(&'static Embedded, &'static str)> {
        all()
            .zip(TAGS.iter())
            .find(|(embedded, _)| embedded.file == self)
            .map(|(embedded, tag)| (embedded, tag.as_str()))
    }

    /// The answer to GET and HEAD: the file, or 304 to whoever has it.
    #[must_use]
    pub fn response(self, request: &Request<'_>) -> Response {
        let Some((embedded, tag)) = self.embedded() else { return Response::new(404) };
        // A proxy that compresses makes a tag weak; the comparison here is the weak one (RFC 9110 13.1.2).
        let known = ["*", tag, &format!("W/{tag}")].iter().any(|tag| request.has_token("if-none-match", tag));
        let response = Response::new(if known { 304 } else { 200 })
            .header("Cache-Control", "no-cache")
            .header("ETag", tag)
            .header("X-Content-Type-Options", "nosniff")
            .header("Referrer-Policy", "no-referrer")
            .header("Cross-Origin-Resource-Policy", if self.is_for_others() { "cross-origin" } else { "same-origin" });
        let response = match self {
            Self::Page => response
                .header("Content-Security-Policy", POLICY)
                .header("Cross-Origin-Opener-Policy", "same-origin")
                .header("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
            Self::OperatorPage => response.header("Content-Security-Policy", OPERATOR_POLICY),
            // Opened by itself, an image is a document.
            Self::Icon => response.header("Content-Security-Policy", "default-src 'none'"),
            _ => response,
        };
        if known { response } else { response.body(embedded.media_type, embedded.body) }
    }

    /// What pages of other origins import or read.
    fn is_for_others(self) -> bool {
        matches!(self, Self::Client | Self::Hook | Self::OpenApi | Self::AsyncApi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Limits, Reader, Step, Terms};

    fn answer(file: File, header: &str) -> String {
        let mut bytes = format!("GET / HTTP/1.1\r\nHost: h\r\n{header}\r\n").into_bytes();
        let mut len = bytes.len();
        let step = Reader::default().read(&mut bytes, &mut len, &Limits { head: 1_024, target: 1_024 }).unwrap();
        let Step::Head { head, .. } = step else { panic!("{step:?}") };
        let response = file.response(&Request::of(&head, &bytes, &[]));
        let mut out = Vec::new();
        response.encode(&mut out, "now", Terms { http11: true, head_only: true, keep_alive: true });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_file_has_a_path_of_its_own_and_they_are_light() {
        for embedded in FILES {
            assert_eq!(File::at(embedded.path), Some(embedded.file), "{}", embedded.path);
            assert_eq!(embedded.file.path(), embedded.path);
        }
        for embedded in OPERATORS {
            assert_eq!(File::of_operator(embedded.path), Some(embedded.file), "{}", embedded.path);
            assert_ne!(File::at(embedded.path), Some(embedded.file), "{}", embedded.path);
        }
        assert_eq!((File::at("/page"), File::at("/page/"), File::at("")), (None, None, None));
        let loaded = FILES.iter().filter(|embedded| embedded.media_type != JSON);
        let total: usize = loaded.map(|embedded| embedded.body.len()).sum();
        assert!(total < 60 * 1024, "{total}");
    }

    #[test]
    fn who_has_it_is_not_sent_it_again() {
        let fresh = answer(File::Client, "");
        let tag = fresh.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
        assert!(fresh.starts_with("HTTP/1.1 200 OK\r\n") && fresh.contains("Content-Length: "), "{fresh}");
        for held in [tag.to_owned(), format!("\"a\", W/{tag}"), "*".to_owned()] {
            let again = answer(File::Client, &format!("If-None-Match: {held}\r\n"));
            assert!(again.starts_with("HTTP/1.1 304 ") && again.contains(tag), "{again}");
        }
        assert!(answer(File::Hook, &format!("If-None-Match: {tag}\r\n")).starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn the_page_is_locked_in_and_the_modules_are_not() {
        let (page, client) = (answer(File::Page, ""), answer(File::Client, ""));
        let operator = answer(File::OperatorPage, "");
        assert!(
            operator.contains("\r\nContent-Security-Policy: default-src 'none'; script-src 'self'; "),
            "{operator}"
        );
        assert!(operator.contains("frame-ancestors 'none'\r\n") && !operator.contains("unsafe-inline"), "{operator}");
        assert!(page.contains("\r\nContent-Security-Policy: default-src 'none'; script-src 'self'; "), "{page}");
        assert!(!page.contains("unsafe-inline") && page.contains("Cross-Origin-Resource-Policy: same-origin\r\n"));
        assert!(client.contains("Cross-Origin-Resource-Policy: cross-origin\r\n"), "{client}");
        assert!(client.contains("Content-Type: text/javascript; charset=utf-8\r\n"), "{client}");
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_nothing_is_inline() {
        for embedded in all().filter(|embedded| embedded.file != File::Icon) {
            let text = std::str::from_utf8(embedded.body).unwrap();
            for odd in ["https://", "innerHTML", "eval(", "style=\"", "<style", "onclick="] {
                assert!(!text.contains(odd), "{}: {odd}", embedded.path);
            }
        }
    }
}
