//! Three nodes restarted one after the other behind a balancer, under load, with sockets that come back: nothing is lost.
//! `ROLLING_SOCKETS` makes it more, or less, than three thousand.

use crate::device::Device;
use crate::nodes::agree;
use crate::redis::Redis;
use crate::server::{Server, service, try_call};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::collections::HashSet;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const NODES: usize = 3;

/// A TCP balancer: each connection goes to the next node that takes one.
struct Balancer {
    address: SocketAddr,
    nodes: Arc<Vec<Mutex<Option<SocketAddr>>>>,
}

impl Balancer {
    fn start(nodes: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let nodes: Arc<Vec<_>> = Arc::new(nodes.into_iter().map(|node| Mutex::new(Some(node))).collect());
        let theirs = Arc::clone(&nodes);
        std::thread::spawn(move || {
            for (n, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let order = (0..NODES).map(|more| (n + more) % NODES);
                let node =
                    order.filter_map(|at| *theirs[at].lock().unwrap()).find_map(|at| TcpStream::connect(at).ok());
                // Nobody there: the client sees its connection end, and comes back.
                let Some(node) = node else { continue };
                let (client, node) = (Arc::new(client), Arc::new(node));
                let (other, back) = (Arc::clone(&client), Arc::clone(&node));
                small_thread(move || pass(&client, &node));
                small_thread(move || pass(&back, &other));
            }
        });
        Self { address, nodes }
    }

    fn set(&self, node: usize, address: Option<SocketAddr>) {
        *self.nodes[node].lock().unwrap() = address;
    }
}

fn small_thread(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(64 * 1024).spawn(run).unwrap();
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// One device: comes back until it is over; what it saw.
fn device(balancer: SocketAddr, user: i64, open: &AtomicUsize, over: &AtomicBool) -> HashSet<String> {
    let mut ever = HashSet::new();
    while !over.load(Ordering::Relaxed) {
        let Some(mut device) = Device::try_connect(balancer, "property", user) else { continue };
        let mut here = HashSet::new();
        open.fetch_add(1, Ordering::Relaxed);
        while let Ok(message) = device.next() {
            let Some(id) = message["notification_id"].as_str() else { continue };
            assert!(here.insert(id.to_owned()), "twice on one socket: {message}");
            ever.insert(message["message"].as_str().unwrap().to_owned());
            if message["message"] == "over" {
                break;
            }
        }
        open.fetch_sub(1, Ordering::Relaxed);
        let _ = device.stream().shutdown(Shutdown::Both);
        if ever.contains("over") {
            break;
        }
    }
    ever
}

fn post(balancer: SocketAddr, users: &[i64], message: &str) -> bool {
    let body = json!({"users": users, "channel": "property", "message": message});
    try_call(balancer, "POST", "/api/notifications/", Some(&service()), Some(&body))
        .is_some_and(|reply| reply.status == 201)
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn a_rolling_restart_loses_nothing() {
    let sockets = std::env::var("ROLLING_SOCKETS").ok().and_then(|text| text.parse().ok()).unwrap_or(3_000);
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let redis = Redis::start();
    let mut env = redis.env();
    env.push(("HABITTOD_SERVER_DRAIN", "1s".to_owned()));
    let mut nodes: Vec<Server> = (0..NODES).map(|_| Server::start_with(&env)).collect();
    let balancer = Balancer::start(nodes.iter().map(|node| node.address).collect());
    let users: Vec<i64> = (1..=sockets).collect();
    let (open, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let everybody =
        || crate::server::patiently(|| open.load(Ordering::Relaxed) == users.len(), || format!("{open:?} open"));
    let mut told = Vec::new();
    std::thread::scope(|scope| {
        let devices: Vec<_> = users
            .iter()
            .map(|user| {
                let run = || device(balancer.address, *user, &open, &over);
                std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, run).unwrap()
            })
            .collect();
        everybody();
        for (n, node) in nodes.iter_mut().enumerate() {
            let posted = format!("before {n}");
            assert!(post(balancer.address, &users, &posted));
            told.push(posted);
            node.signal("-TERM");
            // What is confirmed while it goes and comes counts, whoever confirmed it.
            for more in 0..5 {
                let posted = format!("while {n} {more}");
                if post(balancer.address, &users, &posted) {
                    told.push(posted);
                }
            }
            balancer.set(n, None);
            assert_eq!(node.wait().code(), Some(0));
            node.restart();
            node.until(200, "ready");
            balancer.set(n, Some(node.address));
            everybody();
        }
        crate::server::patiently(|| post(balancer.address, &users, "over"), String::new);
        for device in devices {
            let seen = device.join().unwrap();
            assert!(told.iter().all(|message| seen.contains(message)), "{seen:?} of {told:?}");
        }
        over.store(true, Ordering::Relaxed);
    });
    agree(&nodes.iter().collect::<Vec<_>>());
}
