//! The text of an expression → its parts: one rule of CEL's grammar a function.

use http::HeaderName;

use super::words::{Word, Words};
use super::{
    ATTRIBUTES, Between, DEPTH, HEADERS, LONGEST, Literal, Make, Node, PARTS, Problem, Terms,
    unserved, wrong,
};

/// A part of an expression, in its reader's terms.
type NodeOf<T> = Node<<T as Terms>::Attribute, <T as Terms>::Pattern>;

/// Understands an expression.
///
/// # Errors
/// It is none, too long, or has something in it that isn't served.
pub fn parse<T: Terms>(source: &str, terms: &T) -> Result<NodeOf<T>, Problem> {
    if source.len() > LONGEST {
        return Err(Problem::Unserved(format!("more than {LONGEST} bytes")));
    }
    let mut parser = Parser {
        terms,
        words: Words::of(source)?,
        parts: 0,
        depth: 0,
    };
    let root = parser.expression()?;
    match parser.words.next() {
        None => Ok(root),
        Some(word) => Err(wrong(format!("{word} where it should end"))),
    }
}

/// Something between names and values: what of it is meant is only known from what comes next.
enum Said<N> {
    Node(N),
    /// `request`, `response.headers`, …: it needs more to be a value.
    Path(String),
}

struct Parser<'s, T> {
    terms: &'s T,
    words: Words<'s>,
    parts: usize,
    depth: usize,
}

impl<T: Terms> Parser<'_, T> {
    fn expression(&mut self) -> Result<NodeOf<T>, Problem> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(unserved(format!(
                "more than {DEPTH} brackets in each other"
            )));
        }
        let condition = self.chain(0)?;
        let condition = self.node(condition)?;
        let made = match self.words.take("?") {
            false => condition,
            true => {
                self.part()?;
                let then = self.chain(0)?;
                let then = self.node(then)?;
                self.expect(":")?;
                Node::Choice(Box::new([condition, then, self.expression()?]))
            }
        };
        self.depth -= 1;
        Ok(made)
    }

    /// Operators of this level and those that bind closer, the left of equals first.
    fn chain(&mut self, level: usize) -> Result<Said<NodeOf<T>>, Problem> {
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
            left = Said::Node(match (between, self.node(left)?, right) {
                (Between::In, Node::Literal(Literal::Text(name)), Said::Path(path))
                    if HEADERS.contains(&path.as_str()) =>
                {
                    Node::Present(self.header(&path, &name)?)
                }
                (between, left, right) => Node::Pair(*between, Box::new([left, self.node(right)?])),
            });
        }
    }

    fn unary(&mut self) -> Result<Said<NodeOf<T>>, Problem> {
        for (word, make) in [
            ("!", Node::Not as fn(Box<NodeOf<T>>) -> NodeOf<T>),
            ("-", Node::Minus),
        ] {
            if self.words.take(word) {
                self.part()?;
                let of = self.unary()?;
                let of = self.node(of)?;
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

    fn member(&mut self) -> Result<Said<NodeOf<T>>, Problem> {
        let mut of = self.primary()?;
        loop {
            if self.words.take("[") {
                let index = self.expression()?;
                self.expect("]")?;
                let Node::Literal(Literal::Text(name)) = index else {
                    return Err(unserved("an index that is no text"));
                };
                of = self.select(of, &name)?;
            } else if self.words.take(".") {
                let name = self.name()?;
                of = match self.words.take("(") {
                    true => {
                        let arguments = self.list(")")?;
                        let of = self.node(of)?;
                        Said::Node(self.method(of, &name, arguments)?)
                    }
                    false => self.select(of, &name)?,
                };
            } else {
                return Ok(of);
            }
        }
    }

    fn primary(&mut self) -> Result<Said<NodeOf<T>>, Problem> {
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
    fn list(&mut self, end: &str) -> Result<Vec<NodeOf<T>>, Problem> {
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

    fn node(&self, said: Said<NodeOf<T>>) -> Result<NodeOf<T>, Problem> {
        let path = match said {
            Said::Node(node) => return Ok(node),
            Said::Path(path) => path,
        };
        let known = ATTRIBUTES.contains(&path.as_str());
        let attribute = known.then(|| self.terms.attribute(&path)).flatten();
        attribute.map(Node::Attribute).ok_or_else(|| unserved(path))
    }

    fn select(&self, of: Said<NodeOf<T>>, name: &str) -> Result<Said<NodeOf<T>>, Problem> {
        match of {
            Said::Path(path) if HEADERS.contains(&path.as_str()) => {
                Ok(Said::Node(Node::Attribute(self.header(&path, name)?)))
            }
            Said::Path(path) => Ok(Said::Path(format!("{path}.{name}"))),
            Said::Node(_) => Err(unserved(format!("a field {name:?} of a value"))),
        }
    }

    fn header(&self, of: &str, name: &str) -> Result<T::Attribute, Problem> {
        let of_request = [":method", ":path", ":authority", "host", ":scheme"];
        let of_request = of_request.contains(&name.to_ascii_lowercase().as_str());
        if !of_request && HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(wrong(format!("{name:?} is no header")));
        }
        let served = !of_request || of == HEADERS[0];
        let header = served.then(|| self.terms.header(of, name)).flatten();
        header.ok_or_else(|| unserved(format!("{of}[{name:?}]")))
    }

    fn method(
        &self,
        of: NodeOf<T>,
        name: &str,
        arguments: Vec<NodeOf<T>>,
    ) -> Result<NodeOf<T>, Problem> {
        let between = match name {
            "size" if arguments.is_empty() => return Ok(Node::Made(Make::Size, Box::new(of))),
            "startsWith" => Between::StartsWith,
            "endsWith" => Between::EndsWith,
            "contains" => Between::Contains,
            "matches" => {
                let [Node::Literal(Literal::Text(pattern))] = arguments.as_slice() else {
                    return Err(unserved("an expression to match that is no literal"));
                };
                let pattern = self.terms.pattern(pattern).map_err(wrong)?;
                return Ok(Node::Matches(Box::new(of), pattern));
            }
            name => return Err(unserved(format!("{name}()"))),
        };
        match <[NodeOf<T>; 1]>::try_from(arguments) {
            Ok([with]) => Ok(Node::Pair(between, Box::new([of, with]))),
            Err(_) => Err(wrong(format!("{name}() has one argument"))),
        }
    }
}

fn function<A, P>(name: &str, arguments: Vec<Node<A, P>>) -> Result<Node<A, P>, Problem> {
    let [of] = <[Node<A, P>; 1]>::try_from(arguments)
        .map_err(|_| unserved(format!("{name}() with these arguments")))?;
    let make = match (name, of) {
        ("has", Node::Attribute(attribute)) => return Ok(Node::Present(attribute)),
        ("duration", Node::Literal(Literal::Text(text))) => {
            let span = crate::duration::parse(&text).ok();
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
