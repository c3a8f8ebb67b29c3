use super::*;

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

#[test]
fn a_certificate_is_good_for_the_days_it_was_asked_for() {
    let authority = Authority::create(Validity::days(3650, now())).unwrap();
    let leaf = authority.issue(&Purpose::User, Validity::days(30, now())).unwrap();
    let validity = Validity::of(&leaf.certificate).unwrap();
    assert_eq!(validity, Validity { begins: now() - CLOCK_SKEW, ends: now() + SignedDuration::from_hours(24 * 30) });
    assert!(validity.renewal() > now() + SignedDuration::from_hours(24 * 19));
    assert!(validity.renewal() < now() + SignedDuration::from_hours(24 * 21));
}

#[test]
fn an_authority_is_what_it_was_after_a_round_trip() {
    let made = Authority::create(Validity::days(10, now())).unwrap();
    let read = Authority::from_pem(made.certificate(), made.key()).unwrap();
    let leaf = read.issue(&Purpose::User, Validity::days(1, now())).unwrap();
    assert_eq!(leaf.wanting(made.certificate(), &Purpose::User, now()), None);
}

#[test]
fn what_is_no_authority_is_refused_with_the_reason() {
    let (a, b) = (Authority::create(Validity::days(10, now())).unwrap(), Authority::create(Validity::days(10, now())).unwrap());
    let error = Authority::from_pem(a.certificate(), b.key()).unwrap_err().to_string();
    assert!(error.contains("not that of the certificate"), "{error}");
    let error = Authority::from_pem(a.certificate(), "").unwrap_err().to_string();
    assert!(error.contains("the key cannot be read"), "{error}");
    assert!(Authority::from_pem("", a.key()).is_err());
}

#[test]
fn what_a_server_certificate_lacks_is_named() {
    let authority = Authority::create(Validity::days(10, now())).unwrap();
    let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
    let purpose = |of: &[&str]| Purpose::Server { names: names(of) };
    let leaf = authority.issue(&purpose(&["a.example", "B.example", "0:0::1"]), Validity::days(5, now())).unwrap();
    let ca = authority.certificate();
    assert_eq!(leaf.wanting(ca, &purpose(&["b.example", "::1"]), now()), None);
    assert_eq!(leaf.wanting(ca, &purpose(&["c.example"]), now()), Some("a name is missing"));
    assert_eq!(leaf.wanting(ca, &purpose(&[]), now() + SignedDuration::from_hours(24 * 6)), Some("it ends soon"));
    assert!(leaf.holds_beyond(&names(&["a.example", "::1"])) && !leaf.holds_beyond(&names(&["a.example", "b.example", "::1", "x"])));
    let other = Authority::create(Validity::days(10, now())).unwrap();
    assert_eq!(leaf.wanting(other.certificate(), &purpose(&[]), now()), Some("another authority issued it"));
}
