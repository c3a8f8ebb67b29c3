//! Output as lines, for the log.

use crate::limits::session::LINE_BYTES;

/// Cuts a stream of bytes into lines of bounded length.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Gives every line that `bytes` completes.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(String)) {
        while !bytes.is_empty() {
            let room = LINE_BYTES - self.partial.len();
            let end = bytes.iter().position(|b| *b == b'\n');
            let take = end.unwrap_or(bytes.len()).min(room);
            self.partial.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            let complete = bytes.first() == Some(&b'\n');
            if complete {
                bytes = &bytes[1..];
            }
            if complete || self.partial.len() == LINE_BYTES {
                self.flush(&mut line);
            }
        }
    }

    /// Gives what is left at the end of the stream.
    pub(super) fn finish(&mut self, mut line: impl FnMut(String)) {
        if !self.partial.is_empty() {
            self.flush(&mut line);
        }
    }

    fn flush(&mut self, line: &mut impl FnMut(String)) {
        let text = String::from_utf8_lossy(&self.partial);
        line(text.trim_end_matches('\r').to_owned());
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut all = Vec::new();
        let mut lines = Lines::default();
        for chunk in chunks {
            lines.push(chunk, |line| all.push(line));
        }
        lines.finish(|line| all.push(line));
        all
    }

    #[test]
    fn lines_are_whole_whatever_the_chunks() {
        assert_eq!(lines(&[b"a\nb", b"c\r\n", b"\n", b"end"]), ["a", "bc", "", "end"]);
        assert_eq!(lines(&[b"a\n"]), ["a"]);
        assert!(lines(&[b""]).is_empty());
    }

    #[test]
    fn a_line_is_bounded() {
        let long = vec![b'x'; LINE_BYTES * 2 + 1];
        let cut = lines(&[&long, b"\n"]);
        assert_eq!(cut.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES, LINE_BYTES, 1]);
    }
}
