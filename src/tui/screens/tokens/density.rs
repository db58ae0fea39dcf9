//! How many keys a layer selects along the context, in one row.

/// Glyphs of an eighth of the largest count each.
const EIGHTHS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The same where only ASCII is drawn.
const PLAIN: [char; 8] = ['.', ':', '-', '=', '+', '*', '#', '@'];

/// Returns `width` glyphs: the more of `set` lies in a column's share of `visible` positions, the fuller; none is blank.
pub fn density(set: &[u32], visible: usize, width: usize, ascii: bool) -> String {
    let mut counts = vec![0usize; width];
    for &position in set.iter().filter(|&&p| width > 0 && (p as usize) < visible) {
        counts[position as usize * width / visible] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let glyphs = if ascii { PLAIN } else { EIGHTHS };
    counts.iter().map(|&n| if n == 0 { ' ' } else { glyphs[(n * 8).div_ceil(most) - 1] }).collect()
}

#[cfg(test)]
mod tests {
    use super::density;

    #[test]
    fn full_columns_are_those_with_the_most_keys() {
        assert_eq!(density(&[0, 1, 2, 3, 8, 15], 16, 4, false), "█ ▂▂");
        assert_eq!(density(&[0, 15], 16, 32, true).trim_end().len(), 31);
        assert_eq!((density(&[], 4, 3, false), density(&[3], 4, 0, false)), ("   ".into(), String::new()));
    }
}
