//! Text from an image made fit for XML, for one line and for the room there is.

/// The sign that stands for what was left out.
const GAP: char = '…';

/// A character as it may be shown: itself, or a sign for it. Controls have pictures of their own;
/// what XML 1.0 (section 2.2) does not allow, and what would turn the text around it, has not.
fn shown(it: char) -> char {
    match it {
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(it)).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200b}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{feff}'
        | '\u{fffe}'
        | '\u{ffff}' => '\u{fffd}',
        it => it,
    }
}

/// How many columns of a fixed-width font a character takes, rather too many than too few.
fn columns_of(it: char) -> usize {
    if it < '\u{1100}' || it == GAP { 1 } else { 2 }
}

/// How many columns of a fixed-width font a text takes once it is shown.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// The text in at most `columns_max` columns. What is too long loses its middle, less of its end than
/// of its beginning: the end of a path tells more.
pub(crate) fn fit(text: &str, columns_max: usize) -> String {
    // A text that is too long by far is not walked through.
    let fits = text.len() <= columns_max.saturating_mul(4) && columns(text) <= columns_max;
    if fits {
        return text.to_owned();
    }
    let room = columns_max.saturating_sub(1);
    let head_room = room * 2 / 5;
    let head = cut(text.chars(), head_room);
    let tail: Vec<char> = cut(text.chars().rev(), room - head_room);
    let mut fitted: String = head.into_iter().collect();
    fitted.push(GAP);
    fitted.extend(tail.into_iter().rev());
    fitted
}

/// The first characters that fit into so many columns.
fn cut(text: impl Iterator<Item = char>, columns_max: usize) -> Vec<char> {
    let mut used = 0;
    text.take_while(|it| {
        used += columns_of(*it);
        used <= columns_max
    })
    .collect()
}

/// Appends the text as character data of XML. In character data quotes are plain.
pub(crate) fn push(out: &mut String, text: &str) {
    for it in text.chars() {
        match it {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // Tooltips have lines.
            '\n' => out.push('\n'),
            it => out.push(shown(it)),
        }
    }
}

/// Columns of a path in a tooltip, and of one that markup characters make long.
const TOLD_COLUMNS: usize = 110;
const TOLD_COLUMNS_OF_MARKUP: usize = 40;

/// A path for a tooltip: on one line, and never longer than some 200 bytes of XML, because there are
/// thousands of tooltips.
pub(crate) fn told(path: &str) -> String {
    if path.is_empty() {
        return "(not in a file)".to_owned();
    }
    let fitted = fit(path, TOLD_COLUMNS);
    let markup = fitted.chars().filter(|it| matches!(it, '<' | '>' | '&'));
    let markup = markup.count();
    one_line(&if markup * 4 > TOLD_COLUMNS {
        fit(path, TOLD_COLUMNS_OF_MARKUP)
    } else {
        fitted
    })
}

/// A text of an image on one line: its own line ends are shown, not made.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_controls_are_only_shown() {
        let mut out = String::new();
        push(&mut out, "a<b>&\"'\0\u{1b}\u{202e}\u{ffff}\r\t\u{7f}z");
        assert_eq!(out, "a&lt;b&gt;&amp;\"'␀␛\u{fffd}\u{fffd}␍␉␡z");
        assert_eq!(one_line("a\nb"), "a␊b");
    }

    #[test]
    fn long_texts_lose_their_middle() {
        assert_eq!(fit("usr/bin/env", 11), "usr/bin/env");
        assert_eq!(fit("usr/lib/python3/site.py", 11), "usr/…ite.py");
        assert_eq!(fit("abc", 1), "…");
        assert_eq!(fit("abc", 0), "…");
        assert_eq!(fit("漢字漢字", 5), "…字");
    }
}
