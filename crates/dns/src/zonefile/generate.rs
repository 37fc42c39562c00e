//! `$GENERATE`: many lines that differ by a number.

use super::lex::Field;

/// So many lines at most.
const MOST: i64 = 65_536;

/// The lines: the range, then the line with `$` and `${offset,width,base}` for the number.
pub(super) fn lines(fields: &[Field]) -> Result<impl Iterator<Item = String> + use<>, String> {
    let (range, rest) = fields
        .split_first()
        .ok_or("$GENERATE is followed by a range")?;
    let wrong = || format!("{:?} is no range such as 1-10 or 1-10/2", range.text);
    let (bounds, step) = range.text.split_once('/').unwrap_or((&range.text, "1"));
    let (start, stop) = bounds.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u32>().map(i64::from).map_err(|_| wrong());
    let (start, stop, step) = (number(start)?, number(stop)?, number(step)?);
    if step == 0 || stop < start || (stop - start) / step >= MOST {
        return Err(wrong());
    }
    let line: Vec<String> = rest.iter().map(quoted).collect();
    let parts = parts(&line.join(" "), start, stop)?;
    Ok((start..=stop).step_by(step as usize).map(move |number| {
        let mut line = String::new();
        for part in &parts {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Number {
                    offset,
                    width,
                    base,
                } => {
                    let number = number + offset;
                    line.push_str(&match base {
                        'o' => format!("{number:0width$o}"),
                        'x' => format!("{number:0width$x}"),
                        'X' => format!("{number:0width$X}"),
                        _ => format!("{number:0width$}"),
                    });
                }
            }
        }
        line
    }))
}

fn quoted(field: &Field) -> String {
    match field.quoted {
        true => format!("\"{}\"", field.text),
        false => field.text.clone(),
    }
}

enum Part {
    Text(String),
    Number {
        offset: i64,
        width: usize,
        base: char,
    },
}

fn parts(line: &str, start: i64, stop: i64) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(['$', '\\']) {
        text.push_str(&rest[..at]);
        let escape = rest[at..].starts_with('\\');
        rest = &rest[at + 1..];
        if escape {
            // `\$` is a dollar; other escapes are the line's own.
            if !rest.starts_with('$') {
                text.push('\\');
            }
            let next = rest.chars().next();
            text.extend(next);
            rest = &rest[next.map_or(0, char::len_utf8)..];
            continue;
        }
        if let Some(after) = rest.strip_prefix('$') {
            text.push('$');
            rest = after;
            continue;
        }
        let number = match rest.strip_prefix('{') {
            None => Part::Number {
                offset: 0,
                width: 0,
                base: 'd',
            },
            Some(after) => {
                let (modifier, after) = after.split_once('}').ok_or("a brace is not closed")?;
                rest = after;
                modified(modifier, start, stop)?
            }
        };
        parts.push(Part::Text(std::mem::take(&mut text)));
        parts.push(number);
    }
    text.push_str(rest);
    parts.push(Part::Text(text));
    Ok(parts)
}

/// `offset[,width[,base]]`.
fn modified(modifier: &str, start: i64, stop: i64) -> Result<Part, String> {
    let wrong = || format!("${{{modifier}}} is not ${{offset,width,base}} with base d, o, x or X");
    let mut words = modifier.split(',');
    let offset: i64 = words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(wrong)?;
    let width: u8 = words
        .next()
        .map_or(Ok(0), str::parse)
        .map_err(|_| wrong())?;
    let base = match words.next() {
        None | Some("d") => 'd',
        Some("o") => 'o',
        Some("x") => 'x',
        Some("X") => 'X',
        Some(_) => return Err(wrong()),
    };
    let whole = i64::from(i32::MIN)..=i64::from(i32::MAX);
    if words.next().is_some()
        || !whole.contains(&offset)
        || start + offset < 0
        || stop + offset > i64::from(i32::MAX)
    {
        return Err(wrong());
    }
    Ok(Part::Number {
        offset,
        width: width.into(),
        base,
    })
}
