//! The text of an expression in CEL → [`model::expression`](crate::model::expression). What is no CEL
//! is told from what is CEL and not among what is served, so that whoever has it can be counted by
//! name instead of being refused. Its length and the number of its parts are bounded, there are no
//! loops (macros), and expressions to match are of linear time: evaluating one is bounded, too.

mod names;
mod words;

use regex::Regex;

use self::words::{Word, Words};
use super::text;
use crate::model::expression::{Attribute, Between, Expression, Literal, Make, Node};
use crate::model::format::Operator;
use crate::model::text::HeaderKey;

/// The longest expression, in bytes.
const LONGEST: usize = 4096;
/// The most parts of one, which bounds how long evaluating it takes.
const PARTS: usize = 256;
/// How deep brackets may stand in each other.
const DEPTH: usize = 24;

/// Why a text is no expression here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It is no CEL, as the text says.
    Wrong(String),
    /// It is, and this is not served.
    Unserved(String),
}

/// Understands an expression.
///
/// # Errors
/// It is none, too long, or has something in it that isn't served.
pub(crate) fn parse(source: &str) -> Result<Expression, Problem> {
    if source.len() > LONGEST {
        return Err(Problem::Unserved(format!("more than {LONGEST} bytes")));
    }
    let mut parser = Parser {
        words: Words::of(source)?,
        parts: 0,
        depth: 0,
    };
    let root = parser.expression()?;
    match parser.words.next() {
        None => Ok(Expression {
            source: source.into(),
            root,
        }),
        Some(word) => Err(wrong(format!("{word} where it should end"))),
    }
}

/// Something between names and values: what of it is meant is only known from what comes next.
enum Said {
    Node(Node),
    /// `request`, `response.headers`, …: it needs more to be a value.
    Path(String),
}

struct Parser<'s> {
    words: Words<'s>,
    parts: usize,
    depth: usize,
}

impl Parser<'_> {
    fn expression(&mut self) -> Result<Node, Problem> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(unserved(format!(
                "more than {DEPTH} brackets in each other"
            )));
        }
        let condition = node(self.chain(0)?)?;
        let made = match self.words.take("?") {
            false => condition,
            true => {
                self.part()?;
                let then = node(self.chain(0)?)?;
                self.expect(":")?;
                Node::Choice(Box::new([condition, then, self.expression()?]))
            }
        };
        self.depth -= 1;
        Ok(made)
    }

    /// Operators of this level and those that bind closer, the left of equals first.
    fn chain(&mut self, level: usize) -> Result<Said, Problem> {
        const LEVELS: [&[(&str, Between)]; 5] = [
            &[("||", Between::Or)],
            &[("&&", Between::And)],
            &[
                ("==", Between::Equal),
                ("!=", Between::NotEqual),
                ("<=", Between::AtMost),
                ("<", Between::Less),
                (">=", Between::AtLeast),
                (">", Between::Greater),
                ("in", Between::In),
            ],
            &[("+", Between::Plus), ("-", Between::Minus)],
            &[
                ("*", Between::Times),
                ("/", Between::Divided),
                ("%", Between::Remainder),
            ],
        ];
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.chain(level + 1)?;
        loop {
            let mut found = operators.iter().filter(|(word, _)| self.words.take(word));
            let Some((_, between)) = found.next() else {
                return Ok(left);
            };
            self.part()?;
            let right = self.chain(level + 1)?;
            left = Said::Node(match (between, node(left)?, right) {
                (Between::In, Node::Literal(Literal::Text(name)), Said::Path(path))
                    if names::HEADERS.contains(&path.as_str()) =>
                {
                    Node::Present(header(&path, &name)?)
                }
                (between, left, right) => Node::Pair(*between, Box::new([left, node(right)?])),
            });
        }
    }

    fn unary(&mut self) -> Result<Said, Problem> {
        for (word, make) in [
            ("!", Node::Not as fn(Box<Node>) -> Node),
            ("-", Node::Minus),
        ] {
            if self.words.take(word) {
                self.part()?;
                let of = node(self.unary()?)?;
                return Ok(Said::Node(match (word, of) {
                    ("-", Node::Literal(Literal::Int(number))) => {
                        Node::Literal(Literal::Int(number.wrapping_neg()))
                    }
                    ("-", Node::Literal(Literal::Double(number))) => {
                        Node::Literal(Literal::Double(-number))
                    }
                    (_, of) => make(Box::new(of)),
                }));
            }
        }
        self.member()
    }

    fn member(&mut self) -> Result<Said, Problem> {
        let mut of = self.primary()?;
        loop {
            if self.words.take("[") {
                let index = self.expression()?;
                self.expect("]")?;
                let Node::Literal(Literal::Text(name)) = index else {
                    return Err(unserved("an index that is no text"));
                };
                of = select(of, &name)?;
            } else if self.words.take(".") {
                let name = self.name()?;
                of = match self.words.take("(") {
                    true => {
                        let arguments = self.list(")")?;
                        Said::Node(method(node(of)?, &name, arguments)?)
                    }
                    false => select(of, &name)?,
                };
            } else {
                return Ok(of);
            }
        }
    }

    fn primary(&mut self) -> Result<Said, Problem> {
        self.part()?;
        let literal = |literal| Ok(Said::Node(Node::Literal(literal)));
        match self.words.next() {
            None => Err(wrong("it ends where a value should be")),
            Some(Word::Int(number)) => literal(Literal::Int(number)),
            Some(Word::Double(number)) => literal(Literal::Double(number)),
            Some(Word::Text(text)) => literal(Literal::Text(text.into())),
            Some(Word::Name("true")) => literal(Literal::Bool(true)),
            Some(Word::Name("false")) => literal(Literal::Bool(false)),
            Some(Word::Name("null")) => literal(Literal::Null),
            Some(Word::Name(name)) => match self.words.take("(") {
                true => function(name, self.list(")")?).map(Said::Node),
                false => Ok(Said::Path(name.to_owned())),
            },
            Some(Word::Sign("(")) => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(Said::Node(inner))
            }
            Some(Word::Sign("[")) => Ok(Said::Node(Node::List(self.list("]")?))),
            Some(Word::Sign("{")) => Err(unserved("a map")),
            Some(word) => Err(wrong(format!("{word} where a value should be"))),
        }
    }

    /// Values up to `end`.
    fn list(&mut self, end: &str) -> Result<Vec<Node>, Problem> {
        let mut nodes = Vec::new();
        while !self.words.take(end) {
            if !nodes.is_empty() {
                self.expect(",")?;
            }
            nodes.push(self.expression()?);
        }
        Ok(nodes)
    }

    fn name(&mut self) -> Result<String, Problem> {
        match self.words.next() {
            Some(Word::Name(name)) => Ok(name.to_owned()),
            _ => Err(wrong("no name after a dot")),
        }
    }

    fn expect(&mut self, sign: &str) -> Result<(), Problem> {
        match self.words.take(sign) {
            true => Ok(()),
            false => Err(wrong(format!("no {sign:?} where one should be"))),
        }
    }

    fn part(&mut self) -> Result<(), Problem> {
        self.parts += 1;
        match self.parts > PARTS {
            true => Err(unserved(format!("more than {PARTS} parts"))),
            false => Ok(()),
        }
    }
}

fn wrong(why: impl Into<String>) -> Problem {
    Problem::Wrong(why.into())
}

fn unserved(what: impl Into<String>) -> Problem {
    Problem::Unserved(what.into())
}

fn node(said: Said) -> Result<Node, Problem> {
    match said {
        Said::Node(node) => Ok(node),
        Said::Path(path) => names::attribute(&path)
            .map(Node::Attribute)
            .ok_or_else(|| unserved(path)),
    }
}

fn select(of: Said, name: &str) -> Result<Said, Problem> {
    match of {
        Said::Path(path) if names::HEADERS.contains(&path.as_str()) => {
            Ok(Said::Node(Node::Attribute(header(&path, name)?)))
        }
        Said::Path(path) => Ok(Said::Path(format!("{path}.{name}"))),
        Said::Node(_) => Err(unserved(format!("a field {name:?} of a value"))),
    }
}

fn header(of: &str, name: &str) -> Result<Attribute, Problem> {
    let key = text::header_key(name).map_err(|_| wrong(format!("{name:?} is no header")))?;
    Ok(Attribute::Text(match (of, key) {
        ("request.headers", key) => Operator::Request {
            key,
            otherwise: None,
        },
        ("response.headers", HeaderKey::Name(key)) => Operator::Response {
            key,
            otherwise: None,
        },
        ("response.trailers", HeaderKey::Name(key)) => Operator::Trailer {
            key,
            otherwise: None,
        },
        (of, _) => return Err(unserved(format!("{of}[{name:?}]"))),
    }))
}

fn function(name: &str, arguments: Vec<Node>) -> Result<Node, Problem> {
    let [of] = <[Node; 1]>::try_from(arguments)
        .map_err(|_| unserved(format!("{name}() with these arguments")))?;
    let make = match (name, of) {
        ("has", Node::Attribute(attribute)) => return Ok(Node::Present(attribute)),
        ("duration", Node::Literal(Literal::Text(text))) => {
            let span = mesh::duration::parse(&text).ok();
            let nanos = span.and_then(|span| span.as_nanos().try_into().ok());
            let nanos = nanos.ok_or_else(|| wrong(format!("{text:?} is no duration")))?;
            return Ok(Node::Literal(Literal::Duration(nanos)));
        }
        ("size", of) => (Make::Size, of),
        ("string", of) => (Make::Text, of),
        ("int", of) => (Make::Int, of),
        ("double", of) => (Make::Double, of),
        (name, _) => return Err(unserved(format!("{name}()"))),
    };
    Ok(Node::Made(make.0, Box::new(make.1)))
}

fn method(of: Node, name: &str, arguments: Vec<Node>) -> Result<Node, Problem> {
    let between = match name {
        "size" if arguments.is_empty() => return Ok(Node::Made(Make::Size, Box::new(of))),
        "startsWith" => Between::StartsWith,
        "endsWith" => Between::EndsWith,
        "contains" => Between::Contains,
        "matches" => {
            let [Node::Literal(Literal::Text(regex))] = arguments.as_slice() else {
                return Err(unserved("an expression to match that is no literal"));
            };
            let regex = Regex::new(regex).map_err(|error| wrong(error.to_string()))?;
            return Ok(Node::Matches(Box::new(of), regex));
        }
        name => return Err(unserved(format!("{name}()"))),
    };
    match <[Node; 1]>::try_from(arguments) {
        Ok([with]) => Ok(Node::Pair(between, Box::new([of, with]))),
        Err(_) => Err(wrong(format!("{name}() has one argument"))),
    }
}

#[cfg(test)]
mod tests;
