use super::*;
use serde_json::json;

fn pod(name: &str) -> Object {
    json!({"metadata": {"name": name}, "kind": "Pod"})
}

#[tokio::test]
async fn a_store_opened_again_has_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let done = store
        .commit(vec![Change::put(
            "/pods/a/b",
            Expect::Absent,
            &mut pod("b"),
        )])
        .await
        .unwrap();
    assert_eq!(done[0].object()["metadata"]["resourceVersion"], "2");
    drop(store);
    let store = loop {
        // The writer thread closes the file once the last handle is gone.
        match Store::open(dir.path()) {
            Ok(store) => break store,
            Err(_) => std::thread::yield_now(),
        }
    };
    assert_eq!(store.rev(), 2);
    assert_eq!(
        store.get("/pods/a/b").unwrap().object()["metadata"]["name"],
        "b"
    );
}

#[tokio::test]
async fn a_transaction_happens_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store
        .commit(vec![Change::put(
            "/pods/a/b",
            Expect::Absent,
            &mut pod("b"),
        )])
        .await
        .unwrap();
    let refused = store
        .commit(vec![
            Change::put("/pods/a/c", Expect::Absent, &mut pod("c")),
            Change::put("/pods/a/b", Expect::Absent, &mut pod("b")),
        ])
        .await;
    assert!(matches!(refused, Err(WriteError::Conflict(1))));
    assert!(store.get("/pods/a/c").is_none());
}

#[tokio::test]
async fn the_past_is_listed_from_the_events_since() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store
        .commit(vec![Change::put(
            "/pods/a/b",
            Expect::Absent,
            &mut pod("b"),
        )])
        .await
        .unwrap();
    let then = store.rev();
    store
        .commit(vec![Change::put(
            "/pods/a/c",
            Expect::Absent,
            &mut pod("c"),
        )])
        .await
        .unwrap();
    let rev = store.get("/pods/a/b").unwrap().rev;
    store
        .commit(vec![Change::delete("/pods/a/b", rev, &mut pod("b"))])
        .await
        .unwrap();
    let names = |page: Page| {
        page.items
            .iter()
            .map(|(k, _)| k.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(store.list("/pods/")), ["/pods/a/c"]);
    assert_eq!(names(store.list_at("/pods/", then).unwrap()), ["/pods/a/b"]);
    assert_eq!(store.list_at("/pods/", 0).err().unwrap().oldest, 1);
    let (rev, events) = store.events("/pods/", then).unwrap();
    assert_eq!((rev, events.len(), events[1].deleted), (4, 2, true));
}

#[tokio::test]
async fn a_quiet_resource_is_not_forgotten_because_of_a_busy_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut quiet = pod("quiet");
    store
        .commit(vec![Change::put(
            "/nodes//quiet",
            Expect::Absent,
            &mut quiet,
        )])
        .await
        .unwrap();
    let then = store.rev();
    let mut big = pod("busy");
    big["data"] = "x".repeat(1 << 20).into();
    let mut expect = Expect::Absent;
    for _ in 0..10 {
        let done = store
            .commit(vec![Change::put("/pods/a/busy", expect, &mut big)])
            .await
            .unwrap();
        expect = Expect::Rev(done[0].rev);
    }
    assert!(
        store.events("/pods/", then).is_err(),
        "six megabytes of the past are kept"
    );
    let (rev, events) = store.events("/nodes/", then).unwrap();
    assert_eq!((rev, events.len()), (store.rev(), 0));
    assert!(store.events("/services/", then).is_ok());
}
