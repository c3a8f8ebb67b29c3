use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Audit, AuditLimit, Level, Record};

fn event(audit: &Audit, n: u32) {
    audit.record(Record {
        level: Level::Ocsf,
        target: "proxy".to_owned(),
        message: format!("event {n}"),
        fields: [("n".to_owned(), n.to_string())].into(),
        ocsf: Some(json!({ "class_uid": 4001, "n": n })),
    });
}

#[tokio::test]
async fn records_stay_until_they_are_acknowledged() {
    let (audit, queue) = Audit::new(AuditLimit::default());
    for n in 0..5 {
        event(&audit, n);
    }
    queue.notified().await;
    assert_eq!(queue.unacked(3).iter().map(|r| r.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(queue.unacked(3).len(), 3, "reading takes nothing away");
    queue.ack(2);
    assert_eq!(queue.unacked(10).iter().map(|r| r.seq).collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!(queue.unacked_after(4, 10).iter().map(|r| r.seq).collect::<Vec<_>>(), [5]);
    queue.ack(99);
    assert!(queue.unacked(10).is_empty());
}

#[test]
fn a_full_queue_drops_the_oldest_and_says_how_many() {
    let (audit, queue) = Audit::new(AuditLimit { records: 4, bytes: usize::MAX });
    for n in 0..10 {
        event(&audit, n);
    }
    let records = queue.unacked(100);
    assert_eq!(records.len(), 4);
    assert_eq!((records[0].gap, records[0].seq), (7, 7));
    assert_eq!(records[1..].iter().map(|r| r.seq).collect::<Vec<_>>(), [8, 9, 10]);
    let covered: u64 = records.iter().map(|r| r.gap.max(1)).sum();
    assert_eq!(covered, 10, "markers and records together stand for everything recorded");
}

#[test]
fn a_queue_is_bounded_in_bytes() {
    let (audit, queue) = Audit::new(AuditLimit { records: 10_000, bytes: 64 * 1024 });
    for _ in 0..1000 {
        audit.log(Level::Info, "stdout", "x".repeat(100_000));
    }
    let records = queue.unacked(usize::MAX);
    assert!(records.iter().map(|r| r.message.len()).sum::<usize>() < 64 * 1024);
    assert!(records[1].message.ends_with("…(cut)"));
    assert_eq!(records.iter().map(|r| r.gap.max(1)).sum::<u64>(), 1000);
}

#[test]
fn each_event_holds_the_hash_of_the_one_before() {
    let (audit, queue) = Audit::new(AuditLimit::default());
    for n in 0..3 {
        event(&audit, n);
        audit.log(Level::Info, "supervisor", "no event");
    }
    let mut previous = String::new();
    for record in queue.unacked(100).into_iter().filter(|r| !r.ocsf.is_empty()) {
        let event: serde_json::Value = serde_json::from_str(&record.ocsf).unwrap();
        assert_eq!(event["prev"], previous);
        previous = hex::encode(Sha256::digest(record.ocsf.as_bytes()));
    }
}
