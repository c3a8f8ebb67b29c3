use std::{net::TcpListener, os::fd::OwnedFd};

use rustix::net::SocketType;

use super::*;
use crate::broker::local;

/// A table whose launcher is a process that holds nothing, and a socket in it.
fn with_one() -> (std::process::Child, Table, Arc<Entry>) {
    let (idle, table, entry, _) = with_descriptor();
    (idle, table, entry)
}

fn with_descriptor() -> (std::process::Child, Table, Arc<Entry>, Arc<OwnedFd>) {
    let idle = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let table = Table::new(idle.id());
    let (descriptor, socket) = local::make(SocketType::STREAM).unwrap();
    let entry = table.add(&descriptor, socket).unwrap();
    (idle, table, entry, descriptor)
}

#[test]
fn what_was_collected_is_closed_though_a_thread_had_it_a_moment_longer() {
    let (mut idle, table, entry, descriptor) = with_descriptor();
    let open = Arc::downgrade(&descriptor);
    entry.installed();
    let slow = std::thread::spawn(move || {
        std::thread::sleep(TURN / 5);
        drop((entry, descriptor));
    });
    table.collect_now().unwrap();
    assert_eq!(open.strong_count(), 0, "its port would still be taken");
    slow.join().unwrap();
    idle.kill().unwrap();
    idle.wait().unwrap();
}

#[test]
fn a_socket_that_is_on_its_way_to_the_agent_is_kept() {
    let (mut idle, table, entry) = with_one();
    table.collect_now().unwrap();
    assert!(table.get(Some(entry.inode)).is_some(), "collected before the agent had it");
    idle.kill().unwrap();
    idle.wait().unwrap();
}

#[test]
fn a_thread_that_has_not_said_that_the_agent_has_a_socket_is_waited_for() {
    let (mut idle, table, entry) = with_one();
    let inode = entry.inode;
    let slow = std::thread::spawn(move || {
        std::thread::sleep(TURN / 5);
        entry.installed();
    });
    table.collect_now().unwrap();
    assert!(table.get(Some(inode)).is_none(), "the agent has had it and closed it");
    slow.join().unwrap();
    idle.kill().unwrap();
    idle.wait().unwrap();
}

#[test]
fn a_socket_that_was_overlooked_once_is_kept() {
    let (mut idle, table, entry) = with_one();
    entry.installed();
    table.collect().unwrap();
    assert!(table.get(Some(entry.inode)).is_some(), "a descriptor may move behind a single look");
    table.collect().unwrap();
    assert!(table.get(Some(entry.inode)).is_none(), "nobody holds it");
    idle.kill().unwrap();
    idle.wait().unwrap();
}

#[test]
fn a_socket_that_is_held_is_kept() {
    let listener: OwnedFd = TcpListener::bind("127.0.0.1:0").unwrap().into();
    let table = Table::new(std::os::unix::process::parent_id());
    let (_, socket) = local::make(SocketType::STREAM).unwrap();
    let entry = table.add(&listener, socket).unwrap();
    entry.installed();
    table.collect_now().unwrap();
    assert!(table.get(Some(entry.inode)).is_some());
}
