//! Cuts source text into lower-case words, at what is not a letter or digit and at humps.

/// The words of a line: `RafsV6::is_zran` has "rafs", "v6", "is" and "zran".
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for run in line.split(|it: char| !it.is_ascii_alphanumeric()) {
        let letters: Vec<char> = run.chars().collect();
        let mut word = String::new();
        for (at, letter) in letters.iter().enumerate() {
            let before = at.checked_sub(1).map(|at| letters[at]);
            let after_is_lower = letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
            // A hump begins at a capital after a small letter, and at the last capital of a run
            // of capitals that a small letter follows (`RAFSImage`).
            let hump = letter.is_ascii_uppercase()
                && before.is_some_and(|it| !it.is_ascii_uppercase() || after_is_lower);
            if hump && !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            word.push(letter.to_ascii_lowercase());
        }
        if !word.is_empty() {
            words.push(word);
        }
    }
    words
}

#[test]
fn words_are_cut_at_humps_and_signs() {
    #[track_caller]
    fn check(line: &str, expect: &[&str]) {
        assert_eq!(words(line), expect);
    }
    check(
        "RafsV6::is_zran(drafts)",
        &["rafs", "v6", "is", "zran", "drafts"],
    );
    check("RAFSImage eStargz", &["rafs", "image", "e", "stargz"]);
    check("", &[]);
}
