//! What is said about wrong Corefiles.

use super::{cases, read, shown};

#[test]
fn wrong_corefiles_are_told_what_is_wrong() {
    let mut all = String::new();
    let mut count = 0;
    for (name, text) in cases(include_str!("wrong.txt")) {
        let errors = match read(text) {
            Ok(_) => panic!("{name}: taken"),
            Err(errors) => errors,
        };
        all += &format!("=== {name}\n{}\n", shown(&errors));
        count += 1;
    }
    assert!(count > 60, "{count}");
    insta::assert_snapshot!(all);
}
