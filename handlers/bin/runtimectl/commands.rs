//! The nine commands, by either name: `Deploy` in messages, `deploy` as its queue.

use runtime_platform::events::{COMMANDS, queue_name};

use crate::failure::Failure;

/// A command's name as its messages write it, from what a person typed in either form.
///
/// # Errors
/// When there is none of that name: says which there are, and which was probably meant.
pub fn named(typed: &str) -> Result<&'static str, Failure> {
    let wanted = plain(typed);
    if let Some(found) = COMMANDS.into_iter().find(|command| plain(command) == wanted) {
        return Ok(found);
    }
    let nearest = COMMANDS
        .into_iter()
        .map(|command| (distance(&plain(command), &wanted), command))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= wanted.len().div_ceil(2));
    let all = COMMANDS.map(queue_name).join(", ");
    Err(Failure::unusable(format!("There is no command `{typed}`")).advice(match nearest {
        Some((_, command)) => format!("did you mean `{}`? There are: {all}", queue_name(command)),
        None => format!("name one of {all}"),
    }))
}

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// How many letters must be put, taken away or changed to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row = (0..=b.len()).collect::<Vec<_>>();
    for (i, letter) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn a_command_goes_by_both_its_names() {
        for command in COMMANDS {
            assert_eq!(named(command), Ok(command));
            assert_eq!(named(&queue_name(command)), Ok(command));
        }
    }

    #[test]
    fn an_unknown_command_is_told_the_nearest_and_all_nine() {
        let Err(Failure::Told { exit, what, advice: Some(advice), .. }) = named("deplyo") else { panic!() };
        assert_eq!((exit, what.as_str()), (Exit::Unusable, "There is no command `deplyo`"));
        assert!(advice.starts_with("did you mean `deploy`?"), "{advice}");
        assert!(COMMANDS.iter().all(|command| advice.contains(&queue_name(command))), "{advice}");
        let Err(Failure::Told { advice: Some(advice), .. }) = named("frobnicate-zebra") else { panic!() };
        assert!(advice.starts_with("name one of "), "{advice}");
    }
}
