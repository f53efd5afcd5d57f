#[test]
fn todo_later() {}
