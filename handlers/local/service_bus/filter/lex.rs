//! The words of a SQL filter.

use winnow::{
    ModalResult, Parser,
    combinator::{alt, opt, preceded, repeat},
    error::{ErrMode, ParserError},
    token::{literal, none_of, one_of, take_while},
};

use super::FilterError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    /// A regular identifier or a keyword, as written.
    Plain(String),
    /// `[name]` or `"name"`.
    Delimited(String),
    Text(String),
    Integer(i64),
    Decimal(f64),
    Symbol(&'static str),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub word: Word,
    /// The character at which it starts; the first is 1.
    pub column: usize,
}

/// Splits a filter into words.
pub(super) fn words(text: &str) -> Result<Vec<Token>, FilterError> {
    let column = |rest: &str| text[..text.len() - rest.len()].chars().count() + 1;
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let start = column(rest);
        match word.parse_next(&mut rest) {
            Ok(word) => tokens.push(Token { word, column: start }),
            Err(ErrMode::Cut(Fault(Some(problem)))) => return Err(FilterError { column: start, problem }),
            Err(_) => {
                let odd = rest.chars().next().unwrap_or(' ');
                let problem = format!("`{odd}` means nothing here");
                return Err(FilterError { column: column(rest), problem });
            }
        }
        rest = rest.trim_start();
    }
    Ok(tokens)
}

/// A sentence for the author of the filter, or none where another kind of word may still fit.
struct Fault(Option<String>);

impl<'i> ParserError<&'i str> for Fault {
    type Inner = Self;

    fn from_input(_: &&'i str) -> Self {
        Self(None)
    }

    fn into_inner(self) -> Result<Self, Self> {
        Ok(self)
    }
}

fn refuse<T>(problem: impl Into<String>) -> ModalResult<T, Fault> {
    Err(ErrMode::Cut(Fault(Some(problem.into()))))
}

fn word(input: &mut &str) -> ModalResult<Word, Fault> {
    alt((plain, delimited_name, quoted_name, text, number, symbol)).parse_next(input)
}

fn plain(input: &mut &str) -> ModalResult<Word, Fault> {
    let name = (one_of(char::is_alphabetic), take_while(0.., is_name_char)).take().parse_next(input)?;
    if is_hyphenated(input) {
        let rest = take_while(0.., |c| is_name_char(c) || c == '-').parse_next(input)?;
        return refuse(format!(
            "`{name}{rest}` subtracts one property from another: write [{name}{rest}] for the property of \
             that name, or put spaces around the minus to subtract"
        ));
    }
    Ok(Word::Plain(name.to_owned()))
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_hyphenated(rest: &str) -> bool {
    let mut chars = rest.chars();
    chars.next() == Some('-') && chars.next().is_some_and(char::is_alphabetic)
}

fn delimited_name(input: &mut &str) -> ModalResult<Word, Fault> {
    let name = quoted(input, '[', ']', "]]", "`[` is never closed by `]`")?;
    if name.is_empty() { refuse("`[]` names no property") } else { Ok(Word::Delimited(name)) }
}

fn quoted_name(input: &mut &str) -> ModalResult<Word, Fault> {
    let name = quoted(input, '"', '"', "\"\"", "the name in double quotation marks is never closed")?;
    if name.is_empty() { refuse("`\"\"` names no property") } else { Ok(Word::Delimited(name)) }
}

fn text(input: &mut &str) -> ModalResult<Word, Fault> {
    quoted(input, '\'', '\'', "''", "the text in quotation marks is never closed").map(Word::Text)
}

/// What stands between two marks, of which the closing one is written twice where it is meant itself.
fn quoted(
    input: &mut &str,
    mut open: char,
    close: char,
    twice: &'static str,
    unclosed: &str,
) -> ModalResult<String, Fault> {
    open.parse_next(input)?;
    let content = repeat(0.., alt((literal(twice).value(close), none_of(close)))).parse_next(input)?;
    if opt(close).parse_next(input)?.is_none() {
        return refuse(unclosed);
    }
    Ok(content)
}

fn number(input: &mut &str) -> ModalResult<Word, Fault> {
    let before = *input;
    digits(input)?;
    let fraction = opt(preceded('.', digits)).parse_next(input)?;
    let exponent = opt((one_of(['e', 'E']), opt(one_of(['+', '-'])), digits)).parse_next(input)?;
    if input.starts_with(|c| is_name_char(c) || c == '.') {
        take_while(0.., |c| is_name_char(c) || c == '.').void().parse_next(input)?;
        return refuse(format!("`{}` is not a number", &before[..before.len() - input.len()]));
    }
    let written = &before[..before.len() - input.len()];
    if fraction.is_some() || exponent.is_some() { decimal(written) } else { integer(written) }
}

fn digits(input: &mut &str) -> ModalResult<(), Fault> {
    take_while(1.., |c: char| c.is_ascii_digit()).void().parse_next(input)
}

fn decimal(written: &str) -> ModalResult<Word, Fault> {
    match written.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Word::Decimal(value)),
        _ => refuse(format!("`{written}` is out of range")),
    }
}

fn integer(written: &str) -> ModalResult<Word, Fault> {
    match written.parse() {
        Ok(value) => Ok(Word::Integer(value)),
        Err(_) => refuse(format!("`{written}` is out of range: whole numbers have 64 bits")),
    }
}

/// The longer ones first: `<=` is not `<` and `=`.
const SYMBOLS: [&str; 16] =
    ["<>", "!=", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", ",", "."];

fn symbol(input: &mut &str) -> ModalResult<Word, Fault> {
    let Some(symbol) = SYMBOLS.into_iter().find(|symbol| input.starts_with(symbol)) else {
        return Err(ErrMode::Backtrack(Fault(None)));
    };
    literal(symbol).void().parse_next(input)?;
    Ok(Word::Symbol(symbol))
}
