//! An agent at the other end of a real socket.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use mesh::proto::zds::{AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, WorkloadInfo};
use nix::sys::socket::socket as new_socket;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept, bind,
    listen, recv, sendmsg,
};
use tokio::sync::mpsc;

use super::super::{NetnsId, Request, channel};
use super::*;

/// The agent's end: blocking, on a thread of its own.
struct Agent {
    listener: OwnedFd,
    connection: Option<OwnedFd>,
}

impl Agent {
    fn listen(path: &Path) -> Self {
        let listener = new_socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        listen(&listener, Backlog::new(4).unwrap()).unwrap();
        Self {
            listener,
            connection: None,
        }
    }

    /// Waits for a proxy and its hello.
    fn greet(&mut self) {
        self.connection = Some(socket::own(accept(self.listener.as_raw_fd()).unwrap()));
        let hello = ZdsHello::decode(self.receive().as_slice()).unwrap();
        assert_eq!(hello.version(), Version::V1);
    }

    fn receive(&self) -> Vec<u8> {
        let mut data = [0; 1024];
        let length = recv(
            self.connection.as_ref().unwrap().as_raw_fd(),
            &mut data,
            MsgFlags::empty(),
        )
        .unwrap();
        data[..length].to_vec()
    }

    /// Sends bytes with files and returns the error of the acknowledgement.
    fn say(&self, data: &[u8], files: &[&dyn AsFd]) -> String {
        let files: Vec<_> = files.iter().map(|file| file.as_fd().as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&files)];
        let control = if files.is_empty() {
            &[][..]
        } else {
            &rights[..]
        };
        let parts = [io::IoSlice::new(data)];
        let connection = self.connection.as_ref().unwrap().as_raw_fd();
        sendmsg::<()>(connection, &parts, control, MsgFlags::empty(), None).unwrap();
        match WorkloadResponse::decode(self.receive().as_slice())
            .unwrap()
            .payload
            .unwrap()
        {
            workload_response::Payload::Ack(ack) => ack.error,
        }
    }

    fn request(&self, payload: Payload, files: &[&dyn AsFd]) -> String {
        self.say(
            &WorkloadRequest {
                payload: Some(payload),
            }
            .encode_to_vec(),
            files,
        )
    }
}

fn add(uid: &str) -> Payload {
    let workload_info = WorkloadInfo {
        name: "sleep-1".to_owned(),
        namespace: "default".to_owned(),
        service_account: "sleep".to_owned(),
    };
    Payload::Add(AddWorkload {
        uid: uid.to_owned(),
        workload_info: Some(workload_info),
    })
}

fn own_netns() -> std::fs::File {
    std::fs::File::open("/proc/self/ns/net").unwrap()
}

/// Runs `agent` against a proxy that answers events with `answer`; the events, as text.
async fn events(
    agent: impl FnOnce(Agent) + Send + 'static,
    answer: fn(&Event) -> Result<(), String>,
) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("zds.sock");
    let listening = Agent::listen(&path);
    let (sink, mut requests): (_, mpsc::Receiver<Request>) = channel();
    let client = tokio::spawn(async move { run(&path, &sink).await });
    let agent = tokio::task::spawn_blocking(move || agent(listening));
    let mut seen = Vec::new();
    let collect = async {
        while let Some(request) = requests.recv().await {
            seen.push(match &request.event {
                Event::Added(pod) => {
                    assert_eq!(
                        NetnsId::of(&pod.netns).unwrap(),
                        NetnsId::of(own_netns()).unwrap()
                    );
                    format!(
                        "added {} {} {}",
                        pod.uid, pod.info, pod.info.service_account
                    )
                }
                Event::Kept(uid) => format!("kept {uid}"),
                Event::Removed(uid) => format!("removed {uid}"),
                listing => format!("{listing:?}").to_lowercase(),
            });
            let outcome = answer(&request.event);
            let _ = request.done.send(outcome);
        }
    };
    tokio::select! {
        () = collect => {}
        outcome = agent => outcome.unwrap(),
    }
    client.abort();
    seen
}

#[tokio::test]
async fn pods_are_announced_kept_and_removed_each_with_its_acknowledgement() {
    let agent = |mut agent: Agent| {
        agent.greet();
        assert_eq!(agent.request(add("u1"), &[&own_netns()]), "");
        assert_eq!(
            agent.request(
                Payload::Keep(KeepWorkload {
                    uid: "u2".to_owned()
                }),
                &[]
            ),
            ""
        );
        assert_eq!(
            agent.request(Payload::SnapshotSent(SnapshotSent {}), &[]),
            ""
        );
        assert_eq!(
            agent.request(
                Payload::Del(DelWorkload {
                    uid: "u1".to_owned()
                }),
                &[]
            ),
            ""
        );
    };
    let seen = events(agent, |_| Ok(())).await;
    assert_eq!(
        seen,
        [
            "listing",
            "added u1 default/sleep-1 sleep",
            "kept u2",
            "listed",
            "removed u1"
        ]
    );
}

#[tokio::test]
async fn what_can_not_be_done_or_understood_is_refused_with_the_reason() {
    let agent = |mut agent: Agent| {
        agent.greet();
        assert_eq!(
            agent.request(add("u1"), &[&own_netns()]),
            "port 15001 is taken"
        );
        let netns = own_netns();
        let table: [(Vec<u8>, &[&dyn AsFd], &str); 6] = [
            (
                WorkloadRequest {
                    payload: Some(add("u1")),
                }
                .encode_to_vec(),
                &[],
                "without its network namespace",
            ),
            (
                WorkloadRequest {
                    payload: Some(add("u1")),
                }
                .encode_to_vec(),
                &[&netns, &netns],
                "more than one file",
            ),
            (
                WorkloadRequest {
                    payload: Some(add("")),
                }
                .encode_to_vec(),
                &[&netns],
                "has no uid",
            ),
            (
                b"GET / HTTP/1.1\r\n\r\n".to_vec(),
                &[],
                "not a ZDS WorkloadRequest",
            ),
            (
                vec![0x7a, 0x00],
                &[],
                "of a kind that this version does not know",
            ),
            (vec![0x0a; 8192], &[], "longer than ZDS allows"),
        ];
        for (data, files, expected) in table {
            let refusal = agent.say(&data, files);
            assert!(refusal.contains(expected), "{refusal}");
        }
    };
    let seen = events(agent, |event| match event {
        Event::Added(_) => Err("port 15001 is taken".to_owned()),
        _ => Ok(()),
    })
    .await;
    assert_eq!(seen, ["listing", "added u1 default/sleep-1 sleep"]);
}

#[tokio::test]
async fn a_lost_agent_is_found_again_and_lists_anew() {
    let agent = |mut agent: Agent| {
        agent.greet();
        assert_eq!(agent.request(add("u1"), &[&own_netns()]), "");
        agent.connection = None;
        agent.greet();
        assert_eq!(
            agent.request(Payload::SnapshotSent(SnapshotSent {}), &[]),
            ""
        );
    };
    let seen = events(agent, |_| Ok(())).await;
    assert_eq!(
        seen,
        [
            "listing",
            "added u1 default/sleep-1 sleep",
            "listing",
            "listed"
        ]
    );
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_named_with_the_likely_cause() {
    let (sink, _requests) = channel();
    let error = converse(Path::new("/nowhere/zds.sock"), &sink, &mut false)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nowhere/zds.sock") && error.contains("istio-cni"),
        "{error}"
    );
}

proptest::proptest! {
    #[test]
    fn no_packet_is_more_than_refused(data in proptest::collection::vec(proptest::num::u8::ANY, 0..256)) {
        if let Ok(event) = understand(Packet { data, ..Packet::default() }) {
            assert!(!matches!(event, Event::Added(_)), "nothing is added without a namespace");
        }
    }
}
