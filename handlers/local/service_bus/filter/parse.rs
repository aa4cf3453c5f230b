//! From words to a condition. The order of binding, tightest first: sign, `* / %`, `+ -`, comparison
//! (`IN`, `LIKE` and `IS NULL` too), `NOT`, `AND`, `OR`.

use super::{
    FilterError, SQL_FILTER_CHARS_MAX,
    lex::{Token, Word, words},
};

/// Parentheses, signs and `NOT`s within each other.
const NESTING_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
    Compare { left: Operand, by: Comparison, right: Operand },
    In { value: Operand, list: Vec<Operand> },
    Like { value: Operand, pattern: Operand, escape: Option<Operand> },
    IsNull(Property),
    Exists(Property),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Text(String),
    Integer(i64),
    Decimal(f64),
    Boolean(bool),
    Null,
    Property(Property),
    Negative(Box<Operand>),
    Arithmetic { left: Box<Operand>, by: Arithmetic, right: Box<Operand> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Property {
    User(String),
    System(SystemProperty),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SystemProperty {
    MessageId,
    CorrelationId,
    To,
    ReplyTo,
    Label,
    SessionId,
    ReplyToSessionId,
    ContentType,
    PartitionKey,
}

const SYSTEM_PROPERTIES: [(&str, SystemProperty); 9] = [
    ("MessageId", SystemProperty::MessageId),
    ("CorrelationId", SystemProperty::CorrelationId),
    ("To", SystemProperty::To),
    ("ReplyTo", SystemProperty::ReplyTo),
    ("Label", SystemProperty::Label),
    ("SessionId", SystemProperty::SessionId),
    ("ReplyToSessionId", SystemProperty::ReplyToSessionId),
    ("ContentType", SystemProperty::ContentType),
    ("PartitionKey", SystemProperty::PartitionKey),
];

const KEYWORDS: [&str; 11] =
    ["AND", "OR", "NOT", "IN", "LIKE", "ESCAPE", "IS", "NULL", "EXISTS", "TRUE", "FALSE"];

/// Reads a whole filter.
pub(super) fn parse(text: &str) -> Result<Condition, FilterError> {
    if text.chars().count() > SQL_FILTER_CHARS_MAX {
        return refuse(
            SQL_FILTER_CHARS_MAX + 1,
            format!("a filter has at most {SQL_FILTER_CHARS_MAX} characters"),
        );
    }
    let tokens = words(text)?;
    let mut parser = Parser { tokens: &tokens, next: 0, end: text.chars().count() + 1, depth: 0 };
    if tokens.is_empty() {
        return refuse(1, "the filter is empty: write `1 = 1` to let everything through");
    }
    let condition = parser.or()?.condition()?;
    match parser.tokens.get(parser.next) {
        None => Ok(condition),
        Some(token) => {
            refuse(token.column, format!("expected AND, OR or the end, found {}", name(&token.word)))
        }
    }
}

fn refuse<T>(column: usize, problem: impl Into<String>) -> Result<T, FilterError> {
    Err(FilterError { column, problem: problem.into() })
}

/// A part of the filter: whether it is true or false, or what it amounts to.
enum Part {
    Condition(Condition),
    Operand(Operand),
}

struct Placed {
    part: Part,
    column: usize,
}

impl Placed {
    fn condition(self) -> Result<Condition, FilterError> {
        match self.part {
            Part::Condition(condition) => Ok(condition),
            Part::Operand(_) => refuse(
                self.column,
                "this is a value, not a condition: compare it with something, e.g. `[name] = 'value'` or `1 = 1`",
            ),
        }
    }

    fn operand(self) -> Result<Operand, FilterError> {
        match self.part {
            Part::Operand(operand) => Ok(operand),
            Part::Condition(_) => refuse(
                self.column,
                "this is a condition, not a value: it cannot be compared or calculated with",
            ),
        }
    }
}

struct Parser<'t> {
    tokens: &'t [Token],
    next: usize,
    /// The column behind the last character.
    end: usize,
    depth: usize,
}

impl Parser<'_> {
    fn column(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |token| token.column)
    }

    fn word(&self) -> Option<&Word> {
        self.tokens.get(self.next).map(|token| &token.word)
    }

    fn is_keyword(&self, offset: usize, keyword: &str) -> bool {
        matches!(self.tokens.get(self.next + offset).map(|token| &token.word),
            Some(Word::Plain(word)) if word.eq_ignore_ascii_case(keyword))
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(0, keyword);
        self.next += usize::from(found);
        found
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.word(), Some(Word::Symbol(word)) if *word == symbol);
        self.next += usize::from(found);
        found
    }

    fn expected<T>(&self, what: &str) -> Result<T, FilterError> {
        let found = self.word().map_or_else(|| "the end".to_owned(), name);
        refuse(self.column(), format!("expected {what}, found {found}"))
    }

    fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, FilterError>,
    ) -> Result<T, FilterError> {
        if self.depth == NESTING_MAX {
            return refuse(self.column(), format!("more than {NESTING_MAX} levels within each other"));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn or(&mut self) -> Result<Placed, FilterError> {
        let mut left = self.and()?;
        while self.keyword("OR") {
            let column = left.column;
            let both = (Box::new(left.condition()?), Box::new(self.and()?.condition()?));
            left = Placed { part: Part::Condition(Condition::Or(both.0, both.1)), column };
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Placed, FilterError> {
        let mut left = self.not()?;
        while self.keyword("AND") {
            let column = left.column;
            let both = (Box::new(left.condition()?), Box::new(self.not()?.condition()?));
            left = Placed { part: Part::Condition(Condition::And(both.0, both.1)), column };
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Placed, FilterError> {
        let column = self.column();
        if self.keyword("NOT") {
            let inner = self.nested(Self::not)?.condition()?;
            return Ok(Placed { part: Part::Condition(Condition::Not(Box::new(inner))), column });
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Placed, FilterError> {
        let left = self.sum()?;
        let column = left.column;
        let negated = self.is_keyword(0, "NOT") && (self.is_keyword(1, "IN") || self.is_keyword(1, "LIKE"));
        self.next += usize::from(negated);
        let (condition, negated) = if self.keyword("IN") {
            (Condition::In { value: left.operand()?, list: self.list()? }, negated)
        } else if self.keyword("LIKE") {
            (self.like(left.operand()?)?, negated)
        } else if self.keyword("IS") {
            let negated = self.keyword("NOT");
            if !self.keyword("NULL") {
                return self.expected("NULL");
            }
            let Operand::Property(property) = left.operand()? else {
                return refuse(column, "IS NULL is asked of properties only");
            };
            (Condition::IsNull(property), negated)
        } else if let Some(by) = self.comparator() {
            let right = self.sum()?.operand()?;
            (Condition::Compare { left: left.operand()?, by, right }, false)
        } else {
            return Ok(left);
        };
        let condition = if negated { Condition::Not(Box::new(condition)) } else { condition };
        Ok(Placed { part: Part::Condition(condition), column })
    }

    fn comparator(&mut self) -> Option<Comparison> {
        let Some(Word::Symbol(symbol)) = self.word() else { return None };
        let by = match *symbol {
            "=" => Comparison::Equal,
            "<>" | "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            _ => return None,
        };
        self.next += 1;
        Some(by)
    }

    fn list(&mut self) -> Result<Vec<Operand>, FilterError> {
        if !self.symbol("(") {
            return self.expected("`(` and a list of values");
        }
        let mut list = vec![self.sum()?.operand()?];
        while self.symbol(",") {
            list.push(self.sum()?.operand()?);
        }
        if self.symbol(")") { Ok(list) } else { self.expected("`,` or `)`") }
    }

    fn like(&mut self, value: Operand) -> Result<Condition, FilterError> {
        let pattern_column = self.column();
        let pattern = self.sum()?.operand()?;
        let mut escape = None;
        let mut escape_char = None;
        if self.keyword("ESCAPE") {
            let column = self.column();
            let operand = self.sum()?.operand()?;
            escape_char = match &operand {
                Operand::Text(text) if text.chars().count() == 1 => text.chars().next(),
                Operand::Property(_) => None,
                _ => return refuse(column, "ESCAPE takes a text of one character"),
            };
            escape = Some(operand);
        }
        match (&pattern, escape_char) {
            (Operand::Text(text), Some(escape)) if super::evaluate::pattern(text, Some(escape)).is_none() => {
                refuse(pattern_column, "the pattern ends with its escape character, which escapes nothing")
            }
            (Operand::Text(_) | Operand::Property(_), _) => Ok(Condition::Like { value, pattern, escape }),
            _ => refuse(pattern_column, "LIKE takes a text with the wildcards % and _"),
        }
    }

    fn sum(&mut self) -> Result<Placed, FilterError> {
        let mut left = self.product()?;
        loop {
            let by = if self.symbol("+") {
                Arithmetic::Add
            } else if self.symbol("-") {
                Arithmetic::Subtract
            } else {
                return Ok(left);
            };
            let right = self.product()?;
            left = calculate(left, by, right)?;
        }
    }

    fn product(&mut self) -> Result<Placed, FilterError> {
        let mut left = self.signed()?;
        loop {
            let by = if self.symbol("*") {
                Arithmetic::Multiply
            } else if self.symbol("/") {
                Arithmetic::Divide
            } else if self.symbol("%") {
                Arithmetic::Remainder
            } else {
                return Ok(left);
            };
            let right = self.signed()?;
            left = calculate(left, by, right)?;
        }
    }

    fn signed(&mut self) -> Result<Placed, FilterError> {
        let column = self.column();
        if self.symbol("-") {
            let inner = self.nested(Self::signed)?.operand()?;
            return Ok(Placed { part: Part::Operand(Operand::Negative(Box::new(inner))), column });
        }
        if self.symbol("+") {
            return self.nested(Self::signed);
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Placed, FilterError> {
        let column = self.column();
        if self.symbol("(") {
            let mut inner = self.nested(Self::or)?;
            inner.column = column;
            return if self.symbol(")") { Ok(inner) } else { self.expected("`)`") };
        }
        if self.keyword("EXISTS") {
            let property = self.exists()?;
            return Ok(Placed { part: Part::Condition(Condition::Exists(property)), column });
        }
        let operand = match self.word() {
            Some(Word::Text(text)) => Operand::Text(text.clone()),
            Some(Word::Integer(value)) => Operand::Integer(*value),
            Some(Word::Decimal(value)) => Operand::Decimal(*value),
            _ if self.is_keyword(0, "TRUE") => Operand::Boolean(true),
            _ if self.is_keyword(0, "FALSE") => Operand::Boolean(false),
            _ if self.is_keyword(0, "NULL") => Operand::Null,
            _ => {
                let property = self.property()?;
                return Ok(Placed { part: Part::Operand(Operand::Property(property)), column });
            }
        };
        self.next += 1;
        Ok(Placed { part: Part::Operand(operand), column })
    }

    fn exists(&mut self) -> Result<Property, FilterError> {
        if !self.symbol("(") {
            return self.expected("`(` and a property");
        }
        let property = self.property()?;
        if self.symbol(")") { Ok(property) } else { self.expected("`)`") }
    }

    fn property(&mut self) -> Result<Property, FilterError> {
        let column = self.column();
        let first = match self.word() {
            Some(Word::Plain(word)) if KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword)) => {
                return self.expected("a property or a value");
            }
            Some(Word::Plain(word) | Word::Delimited(word)) => word.clone(),
            _ => return self.expected("a property or a value"),
        };
        let plain = matches!(self.word(), Some(Word::Plain(_)));
        self.next += 1;
        if plain && matches!(self.word(), Some(Word::Symbol("("))) {
            return refuse(
                column,
                format!("the function `{first}` is not supported: name the property itself"),
            );
        }
        if !self.symbol(".") {
            return Ok(Property::User(first));
        }
        let member_column = self.column();
        let Some(Word::Plain(member) | Word::Delimited(member)) = self.word().cloned() else {
            return self.expected("the name of a property");
        };
        self.next += 1;
        match first.to_ascii_lowercase().as_str() {
            "user" => Ok(Property::User(member)),
            "sys" => system_property(&member, member_column),
            _ => refuse(
                column,
                format!("`{first}` is no scope: write sys.{member}, user.{member} or [{first}.{member}]"),
            ),
        }
    }
}

fn system_property(name: &str, column: usize) -> Result<Property, FilterError> {
    match SYSTEM_PROPERTIES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        Some((_, property)) => Ok(Property::System(property)),
        None => {
            let known = SYSTEM_PROPERTIES.map(|(known, _)| known).join(", ");
            refuse(column, format!("there is no system property `{name}`: there are {known}"))
        }
    }
}

fn calculate(left: Placed, by: Arithmetic, right: Placed) -> Result<Placed, FilterError> {
    let column = left.column;
    let operand =
        Operand::Arithmetic { left: Box::new(left.operand()?), by, right: Box::new(right.operand()?) };
    Ok(Placed { part: Part::Operand(operand), column })
}

fn name(word: &Word) -> String {
    match word {
        Word::Plain(word) => format!("`{word}`"),
        Word::Delimited(word) => format!("`[{word}]`"),
        Word::Text(text) => format!("the text '{text}'"),
        Word::Integer(value) => format!("`{value}`"),
        Word::Decimal(value) => format!("`{value}`"),
        Word::Symbol(symbol) => format!("`{symbol}`"),
    }
}
