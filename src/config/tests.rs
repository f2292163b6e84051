//! Owns what is asked of the whole: every key by file and by variable, and everything that may be wrong. Never a single
//! value's form: that is beside its reader. Enter anywhere.

use super::{
    Ack, Backend, Config, Format, Key, Level, Mistakes, RedisAddress,
    keys::{Entry, KEYS},
    read::{EXCLUSIVE, load},
};
use std::{ffi::OsString, fs, path::Path, time::Duration};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PEM: &str = "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n";

fn load_env(env: &[(&str, &str)]) -> Result<Config, Mistakes> {
    load(None, env.iter().map(|(name, value)| (name.into(), value.into())))
}

/// As from a file named `config.toml`; its folder is cut out of the messages.
fn load_text(text: &str, env: &[(&str, &str)]) -> Result<Config, Mistakes> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, text).unwrap();
    let strip = |text: &mut String| *text = text.replace(&format!("{}/", folder.path().display()), "");
    load(Some(&path), env.iter().map(|(name, value)| (name.into(), value.into()))).map_err(|mut mistakes| {
        mistakes.0.iter_mut().for_each(|mistake| {
            strip(&mut mistake.place);
            strip(&mut mistake.wrong.what);
        });
        mistakes
    })
}

fn mistakes(outcome: Result<Config, Mistakes>) -> String {
    outcome.expect_err("a mistake").to_string()
}

fn toml(entry: &Entry, value: &str) -> String {
    format!("[{}]\n{} = {value}\n", entry.section, entry.key)
}

#[test]
fn every_key_can_be_set_in_the_file_and_by_its_variable() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (secret_file, pem_file) = (file("secret", SECRET), file("pem", PEM));
    let samples = [
        "7",
        "7s",
        "true",
        "text",
        "debug",
        "client",
        "redis",
        "core",
        "127.0.0.1:7",
        "http://a.bo",
        "10.0.0.0/8",
        "redis://a",
        SECRET,
        &secret_file,
        &pem_file,
    ];
    for entry in KEYS {
        let mut env = vec![];
        if entry.name == "channel_layer.django" {
            env.push(("CHANNEL_LAYER", "redis"));
        }
        let before = load_env(&env).unwrap();
        let variable = entry.variable();
        let (sample, by_env) = samples
            .iter()
            .find_map(|sample| {
                let with = [env.as_slice(), &[(variable.as_str(), *sample)]].concat();
                load_env(&with).ok().filter(|config| *config != before).map(|config| (sample, config))
            })
            .unwrap_or_else(|| panic!("no sample fits {}", entry.name));
        let by_file = [format!("\"{sample}\""), (*sample).to_owned()]
            .into_iter()
            .find_map(|value| load_text(&toml(entry, &value), &env).ok());
        assert_eq!(by_file, Some(by_env), "{} = {sample}", entry.name);
    }
}

#[test]
fn every_key_refuses_what_is_no_value_for_it() {
    for entry in KEYS {
        for value in ["1979-05-27", "{ a = 1 }", "[1]", "[[\"a\"]]", "-1", "1.5", "99999999999999999999999999"] {
            let told = mistakes(load_text(&toml(entry, value), &[]));
            assert!(told.starts_with(&format!("config.toml:2: {}: ", entry.name)), "{value}: {told}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
        let variable = entry.variable();
        let empty_is_a_list =
            ["server.admin_listen", "server.allowed_origins", "server.trusted_proxies", "channel_layer.django_keys"];
        let empty = load_env(&[(&variable, "")]);
        assert_eq!(empty.is_ok(), empty_is_a_list.contains(&entry.name), "{empty:?}");
        let told = mistakes(load_text(&toml(entry, "\"?\\u0000?\""), &[]));
        assert!(!told.contains('\0'), "{told:?}");
    }
}

#[test]
fn every_misspelt_key_is_refused_and_the_right_one_named() {
    for entry in KEYS {
        let told = mistakes(load_text(&format!("[{}]\n{}x = 1\n", entry.section, entry.key), &[]));
        assert_eq!(told, format!("config.toml:2: {0}x: unknown; is {0} meant?", entry.name));
        let told = mistakes(load_env(&[(&format!("{}X", entry.variable()), "1")]));
        assert_eq!(told, format!("{0}X: unknown; is {0} meant?", entry.variable()));
    }
}

#[test]
fn nought_turns_off_only_what_can_be_off() {
    let names = ["storage.path", "redis_host", "log_key", "django_prefix", "django_keys"];
    let off: Vec<_> = KEYS
        .iter()
        .filter(|entry| !names.iter().any(|name| entry.name.ends_with(name)))
        .filter(|entry| {
            // A burst of 0 is only wrong while its rate is on.
            let rate = entry.variable().replace("_BURST", "_PER_SECOND");
            load_env(&[(&rate, "0"), (&entry.variable(), "0")]).is_ok()
        })
        .map(|entry| entry.name)
        .collect();
    assert_eq!(
        off,
        [
            "server.drain",
            "limits.connections",
            "limits.connections_per_user",
            "limits.connections_per_ip",
            "limits.handshakes_per_second",
            "limits.handshakes_burst",
            "limits.ws_messages_per_second",
            "limits.ws_messages_burst",
            "limits.ws_control_per_second",
            "limits.requests_per_second",
            "limits.requests_burst",
            "limits.logins_per_minute",
            "limits.logins_per_minute_per_user",
            "limits.idle_timeout",
            "limits.ping_interval",
        ]
    );
    assert_eq!(load_env(&[("HABITTOD_LIMITS_CONNECTIONS", "0")]).unwrap().limits.connections, None);
    assert!(mistakes(load_env(&[("HABITTOD_LIMITS_REQUESTS_BURST", "0")])).contains("requests_per_second = 0"));
}

#[test]
fn the_reference_file_is_the_defaults_and_has_every_key() {
    let text = include_str!("../../config.toml");
    assert_eq!(load_text(text, &[]), Ok(Config::default()));
    let mut section = "";
    let mut commented_out = vec![];
    let mut keys = vec![];
    for line in text.lines() {
        let (key, is_comment) = line.strip_prefix("# ").map_or((line, false), |line| (line, true));
        let (key, value) = key.split_once(" = ").unwrap_or((key, ""));
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some(entry) = KEYS.iter().find(|entry| entry.section == section && entry.key == key)
            && !value.is_empty()
        {
            keys.push(entry.name);
            commented_out.extend(is_comment.then_some(entry.name));
        }
    }
    assert_eq!(keys, KEYS.iter().map(|entry| entry.name).collect::<Vec<_>>());
    let without_default = ["auth.secret", "auth.secret_file", "auth.public_key_file", "auth.login"];
    let excluding = ["channel_layer.redis_host", "channel_layer.redis_port", "channel_layer.redis_url"];
    assert_eq!(commented_out, [&without_default[..], &excluding, &["log.format"]].concat());
}

#[test]
fn the_environment_wins_and_the_documents_own_names_win_over_it() {
    let text = "[limits]\nbody = 1\n[channel_layer]\nbackend = \"inmemory\"\nredis_host = \"a\"\nredis_port = 1\n";
    let ours = [
        ("HABITTOD_LIMITS_BODY", "2 KiB"),
        ("HABITTOD_CHANNEL_LAYER_REDIS_HOST", "b"),
        ("HABITTOD_CHANNEL_LAYER_REDIS_PORT", "2"),
    ];
    let config = load_text(text, &ours).unwrap();
    assert_eq!((config.limits.body, config.channel_layer.backend), (2048, Backend::InMemory));
    assert_eq!(config.channel_layer.redis, RedisAddress::Host { host: "b".to_owned(), port: 2 });

    let theirs = [("CHANNEL_LAYER", "redis"), ("REDIS_HOST", "c"), ("REDIS_PORT", "3"), ("HOME", "/"), ("REDIS", "?")];
    let config = load_text(text, &[&ours[..], &theirs].concat()).unwrap();
    assert_eq!(config.channel_layer.backend, Backend::Redis);
    assert_eq!(config.channel_layer.redis, RedisAddress::Host { host: "c".to_owned(), port: 3 });
}

#[test]
fn values_arrive_as_meant() {
    let text = r#"
        limits.head = 0x4000
        limits.idle_timeout = 0
        [server]
        listen = ["127.0.0.1:8000", "[::1]:8000"]
        admin_listen = ""
        allowed_origins = "https://A.bo, http://localhost:80"
        trusted_proxies = []
        [channel_layer]
        redis_url = "unix:///run/redis.sock"
        [log]
        level = "warn"
        format = "text"
    "#;
    let config = load_text(text, &[("HABITTOD_DELIVERY_ACK", "written")]).unwrap();
    assert_eq!(config.limits.head, 16_384);
    assert_eq!(config.limits.idle_timeout, Duration::ZERO);
    assert_eq!(config.server.listen.len(), 2);
    assert!(config.server.admin_listen.is_empty() && config.server.trusted_proxies.is_empty());
    assert_eq!(config.server.allowed_origins, ["https://a.bo", "http://localhost"]);
    assert_eq!(config.channel_layer.redis, RedisAddress::Url("unix:///run/redis.sock".to_owned()));
    assert_eq!((config.log.level, config.log.format), (Level::Warn, Some(Format::Text)));
    assert_eq!((config.delivery.ack, Ack::Written.as_str()), (Ack::Written, "written"));
}

#[test]
fn everything_wrong_is_told_at_once_with_its_line() {
    let text = "[server]\nlisten = \"localhost:8000, :1\"\nnothing = 1\n\n[limits]\nbody = 64 KiB\nhead = \"0\"\n\
                body_timeout = 30\npong_timeout = \"101y\"\nbody = 5\n[limts]\nx = 1\n[log]\nlevel = 3\n";
    let env = [("HABITTOD_STORAGE_PATH", ""), ("HABITTOD_PATH", "x"), ("REDIS_PORT", "65536")];
    assert_eq!(
        mistakes(load_text(text, &env)),
        "config.toml:2: server.listen: \"localhost:8000\" is not an address and a port, \":1\" is not an address and \
         a port; write e.g. 127.0.0.1:8000, 0.0.0.0:8000 for all of IPv4, [::]:8000 for IPv6\n\
         config.toml:3: server.nothing: unknown; [server] has listen, admin_listen, allowed_origins, \
         trusted_proxies, drain\n\
         config.toml:6: string values must be quoted, expected literal string; \
         write key = value, with words and all that has a unit in quotes\n\
         config.toml:7: limits.head: 0 would let nothing through; \
         write a whole number and its unit, 1 B to 1024 MiB, e.g. 16 KiB\n\
         config.toml:8: limits.body_timeout: 30 has no unit; write 30s if seconds are meant (ms, s, m, h, d)\n\
         config.toml:9: limits.pong_timeout: \"101y\" is not a duration; \
         write a whole number and its unit, e.g. 500ms, 30s, 5m, 12h or 90d\n\
         config.toml:10: duplicate key; keep one of them\n\
         config.toml:11: limts: unknown; is [limits] meant?\n\
         config.toml:14: log.level: the value is of type integer; write it in quotes\n\
         HABITTOD_PATH: unknown; is HABITTOD_STORAGE_PATH meant?\n\
         HABITTOD_STORAGE_PATH: an empty path; name a file\n\
         REDIS_PORT: 65536 is too large; write a whole number from 1 to 65535"
    );
}

#[test]
fn what_cannot_be_is_refused() {
    for (text, told) in [
        ("server = 1", "config.toml:1: server: a section, not a key"),
        ("[[server]]\nlisten = \"\"", "config.toml:1: server: a section, not a key"),
        ("\nlisten = 1", "config.toml:2: listen: unknown; is server.listen meant?"),
        ("server.listen = \"127.0.0.1:1,127.0.0.1:1\"", "config.toml:1: server.listen: 127.0.0.1:1 twice"),
        ("server.listen = \"127.0.0.1:8001\"", "config.toml:1: server.listen: 127.0.0.1:8001 twice"),
        ("server.listen = \"0.0.0.0:8001\"", "config.toml:1: server.listen: 0.0.0.0:8001 takes 127.0.0.1:8001 too; "),
        ("server.listen = \"[::1]:1, [::]:1\"", "[::]:1 takes [::1]:1 too; leave one of the two out, or "),
        ("server.listen = \"[::ffff:127.0.0.1]:8001\"", "[::ffff:127.0.0.1]:8001 takes 127.0.0.1:8001 too"),
        ("server.listen = \"127.0.0.1:1,\"", "\"\" is not an address"),
        ("server.listen = \"127.0.0.1:65536\"", "is not an address"),
        ("server.allowed_origins = [\"*\", \"http://a.bo\"]", "keep * alone"),
        ("server.drain = \"36501d\"", "36501d is longer than 100 years"),
        ("limits.body = \"2000 MiB\"", "2000 MiB is more than 1 GiB"),
        ("limits.body_timeout = \"0s\"", "0 leaves no time at all"),
        ("limits.requests_burst = \"5\"", "of type string; write a whole number from 0 to 1000000000, without quotes"),
        ("delivery.replay_max = 1000001", "1000001 is too large; write a whole number from 1 to 1000000"),
        ("delivery.ack = \"Pong\"", "\"Pong\" is none of the choices; write pong, client or written"),
        ("channel_layer.django = \"core\"", "config.toml:1: channel_layer.django: core without Redis"),
        ("auth.login = \"true\"", "of type string; write true or false"),
    ] {
        let all = mistakes(load_text(text, &[]));
        assert!(all.contains(told) && all.lines().count() == 1, "{text}: {all}");
    }
    let free_ports = "server.listen = \"127.0.0.1:0,127.0.0.1:0\"\nserver.admin_listen = \"127.0.0.1:0\"";
    assert!(load_text(free_ports, &[]).is_ok());
    assert!(load_text("server.listen = \"0.0.0.0:8000,[::1]:8001,127.0.0.2:8001\"", &[]).is_ok());
    // Unless the machine says otherwise.
    let both = load_text("server.listen = \"0.0.0.0:1,[::]:1\"", &[]);
    let apart = fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|only| only.trim() == "1");
    assert!(apart == both.is_ok() && (apart || mistakes(both).contains("[::]:1 takes 0.0.0.0:1 too")));
}

#[test]
fn files_and_variables_that_cannot_be_read_are_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.toml");
    let place = missing.display();
    // What the file would have said is unknown, so no contradiction is seen.
    let told = mistakes(load(Some(&missing), [("HABITTOD_CHANNEL_LAYER_DJANGO".into(), "core".into())]));
    assert!(told.starts_with(&format!("{place}: cannot be read: No such file or directory")), "{told}");
    assert_eq!(told.lines().count(), 1);
    assert!(mistakes(load(Some(folder.path()), [])).contains("cannot be read: Is a directory"));
    assert!(mistakes(load(Some(Path::new("/dev/zero")), [])).contains("larger than 1 MiB"));

    let latin = folder.path().join("latin.toml");
    fs::write(&latin, b"[log]\n# a\xf1o\n").unwrap();
    assert!(mistakes(load(Some(&latin), [])).contains("latin.toml:2: not UTF-8"));

    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt as _;
        let odd = || OsString::from_vec(b"a\xff".to_vec());
        let name = OsString::from_vec(b"HABITTOD_LOG\xff".to_vec());
        let told = mistakes(load(None, [("REDIS_HOST".into(), odd()), (name, odd()), ("HOME".into(), odd())]));
        let lines: Vec<_> = told.lines().collect();
        assert!(
            matches!(lines[..], [a, b] if a.contains(": unknown") && b == "REDIS_HOST: not UTF-8; set it to UTF-8 text")
        );
    }
}

#[test]
fn a_key_is_a_secret_or_a_file_of_one_or_a_public_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let path = path.to_str().unwrap();
    let by = |variable, value| load_env(&[(variable, value)]).map(|config| (config.auth.key, config.auth.login));
    let secret = |text: &str| Ok((Some(Key::Secret(text.as_bytes().to_vec())), true));

    assert_eq!(load_env(&[]).map(|config| (config.auth.key, config.auth.login)), Ok((None, false)));
    assert_eq!(by("HABITTOD_AUTH_SECRET", SECRET), secret(SECRET));
    for (written, read) in [("", ""), ("\n", ""), ("\r\n", ""), ("\n\n", "\n"), ("\r", "\r"), (" ", " ")] {
        fs::write(path, format!("{SECRET}{written}")).unwrap();
        assert_eq!(by("HABITTOD_AUTH_SECRET_FILE", path), secret(&format!("{SECRET}{read}")), "{written:?}");
    }
    assert!(mistakes(load_env(&[("HABITTOD_AUTH_PUBLIC_KEY_FILE", path)])).contains("is not PEM"));
    fs::write(path, format!("{}\n", &SECRET[1..])).unwrap();
    assert!(mistakes(load_env(&[("HABITTOD_AUTH_SECRET_FILE", path)])).contains("31 bytes is too short"));
    fs::write(path, "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n").unwrap();
    assert!(mistakes(load_env(&[("HABITTOD_AUTH_PUBLIC_KEY_FILE", path)])).contains("is a private key"));
    fs::write(path, PEM).unwrap();
    assert_eq!(by("HABITTOD_AUTH_PUBLIC_KEY_FILE", path), Ok((Some(Key::PublicPem(PEM.into())), false)));

    let public = ("HABITTOD_AUTH_PUBLIC_KEY_FILE", path);
    assert!(mistakes(load_env(&[public, ("HABITTOD_AUTH_LOGIN", "true")])).starts_with("HABITTOD_AUTH_LOGIN: "));
    assert!(load_env(&[public, ("HABITTOD_AUTH_LOGIN", "false")]).is_ok());
    let off = load_env(&[("HABITTOD_AUTH_SECRET", SECRET), ("HABITTOD_AUTH_LOGIN", "false")]);
    assert!(off.is_ok_and(|config| !config.auth.login));
}

#[test]
fn only_one_of_two_ways_to_say_a_thing_is_taken() {
    for (one, other) in EXCLUSIVE {
        let set = |name| {
            let entry = KEYS.iter().find(|entry| entry.name == name).unwrap();
            let samples =
                [("auth.secret", SECRET), ("channel_layer.redis_url", "redis://a"), ("channel_layer.redis_port", "1")];
            let sample = samples.into_iter().find(|(of, _)| *of == name).map_or("x", |(_, sample)| sample);
            (entry, sample)
        };
        let ((file, in_file), (env, in_env)) = (set(one), set(other));
        let told = mistakes(load_text(&toml(file, &format!("\"{in_file}\"")), &[(&env.variable(), in_env)]));
        assert_eq!(told, format!("config.toml:2: {one}: set together with {}; keep one of the two", env.variable()));
    }
    let url = ("HABITTOD_CHANNEL_LAYER_REDIS_URL", "redis://a");
    assert!(mistakes(load_env(&[url, ("REDIS_PORT", "1")])).contains("set together with REDIS_PORT"));
}

#[test]
fn no_message_shows_a_secret() {
    let short = "hunter2";
    for text in [
        format!("auth.secret = \"{short}\""),
        format!("auth.secret = {short} {short}"),
        format!("auth.secret = [\"{short}\"]"),
        format!("auth.secret = \"{short}"),
        format!("auth.secrets = \"{short}\""),
        format!("secret = \"{short}\""),
        format!("channel_layer.redis_url = \"http://:{short}@a\""),
    ] {
        let outcome = load_text(&text, &[]).unwrap_err();
        assert!(!format!("{outcome} {outcome:?}").contains(short), "{outcome}");
    }
    let url = format!("redis://:{short}@a");
    let env = [("HABITTOD_AUTH_SECRET", SECRET), ("HABITTOD_CHANNEL_LAYER_REDIS_URL", &url)];
    let shown = format!("{:?}", load_env(&env).unwrap());
    assert!(!shown.contains(short) && !shown.contains(SECRET), "{shown}");
}
