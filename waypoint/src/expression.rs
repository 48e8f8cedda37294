//! What an expression (`crate::model::expression`) comes to for a request or connection. A value that isn't known, or is of
//! another type than is asked of it, is an error, which `||` and `&&` pass over where the other side
//! decides, as CEL has it. Nothing here loops or grows beyond the expression and what it looks at.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write as _;

use crate::model::expression::{Attribute, Between, Expression, Literal, Make, Node};
use crate::model::format::Operator;
use crate::model::text::HeaderKey;
use crate::route::headers::Values;
use crate::telemetry::Flags;

/// A value of CEL.
#[derive(Debug, Clone, PartialEq)]
enum Value<'e> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'e, str>),
    /// In nanoseconds.
    Duration(i64),
    List(Vec<Value<'e>>),
}

/// Whether it is true; an error isn't.
pub fn holds(expression: &Expression, of: &dyn Values) -> bool {
    value(&expression.root, of) == Some(Value::Bool(true))
}

/// Appends the value as text; whether there is one.
pub fn write(expression: &Expression, of: &dyn Values, out: &mut String) -> bool {
    value(&expression.root, of).is_some_and(|value| print(&value, out))
}

/// The value of an attribute as Envoy gives it to plugins: numbers and times in eight bytes, the least
/// first.
pub fn property(attribute: &Attribute, of: &dyn Values) -> Option<Vec<u8>> {
    match self::attribute(attribute, of)? {
        Value::Bool(is) => Some(vec![is.into()]),
        Value::Int(number) | Value::Duration(number) => Some(number.to_le_bytes().to_vec()),
        Value::Double(number) => Some(number.to_le_bytes().to_vec()),
        Value::Text(text) => Some(text.into_owned().into_bytes()),
        Value::Null | Value::List(_) => None,
    }
}

fn print(value: &Value<'_>, out: &mut String) -> bool {
    match value {
        Value::Bool(value) => write!(out, "{value}").is_ok(),
        Value::Int(value) => write!(out, "{value}").is_ok(),
        Value::Double(value) => write!(out, "{value}").is_ok(),
        Value::Text(value) => {
            out.push_str(value);
            true
        }
        Value::Duration(nanos) => {
            #[expect(clippy::cast_precision_loss, reason = "shown in seconds")]
            let seconds = *nanos as f64 / 1e9;
            write!(out, "{seconds}s").is_ok()
        }
        Value::Null | Value::List(_) => false,
    }
}

fn value<'e>(node: &'e Node, of: &dyn Values) -> Option<Value<'e>> {
    match node {
        Node::Literal(literal) => Some(match literal {
            Literal::Null => Value::Null,
            Literal::Bool(value) => Value::Bool(*value),
            Literal::Int(value) => Value::Int(*value),
            Literal::Double(value) => Value::Double(*value),
            Literal::Text(value) => Value::Text(Cow::Borrowed(value)),
            Literal::Duration(nanos) => Value::Duration(*nanos),
        }),
        Node::List(nodes) => {
            let values: Option<Vec<_>> = nodes.iter().map(|node| value(node, of)).collect();
            values.map(Value::List)
        }
        Node::Attribute(attribute) => self::attribute(attribute, of),
        Node::Present(attribute) => Some(Value::Bool(self::attribute(attribute, of).is_some())),
        Node::Not(node) => truth(node, of).map(|is| Value::Bool(!is)),
        Node::Minus(node) => match value(node, of)? {
            Value::Int(number) => number.checked_neg().map(Value::Int),
            Value::Double(number) => Some(Value::Double(-number)),
            Value::Duration(nanos) => nanos.checked_neg().map(Value::Duration),
            _ => None,
        },
        Node::Choice(nodes) => {
            let [condition, then, otherwise] = &**nodes;
            match truth(condition, of)? {
                true => value(then, of),
                false => value(otherwise, of),
            }
        }
        Node::Pair(between, nodes) => pair(*between, &nodes[0], &nodes[1], of),
        Node::Matches(node, regex) => match value(node, of)? {
            Value::Text(text) => Some(Value::Bool(regex.is_match(&text))),
            _ => None,
        },
        Node::Made(make, node) => made(*make, value(node, of)?),
    }
}

fn truth(node: &Node, of: &dyn Values) -> Option<bool> {
    match value(node, of)? {
        Value::Bool(is) => Some(is),
        _ => None,
    }
}

fn attribute<'e>(attribute: &Attribute, of: &dyn Values) -> Option<Value<'e>> {
    let written = |operator: &Operator| {
        let mut text = String::new();
        of.write(operator, &mut text).then_some(text)
    };
    match attribute {
        Attribute::Text(operator) => written(operator).map(|text| Value::Text(text.into())),
        Attribute::Number(operator) => match (operator, written(operator)?.parse().ok()?) {
            // Where nobody answered there is no code, which is written as 0 in lines.
            (Operator::ResponseCode, 0) => None,
            (_, number) => Some(Value::Int(number)),
        },
        Attribute::Truth(operator) => Some(Value::Bool(of.write(operator, &mut String::new()))),
        Attribute::Span(operator) => {
            let millis: i64 = written(operator)?.parse().ok()?;
            millis.checked_mul(1_000_000).map(Value::Duration)
        }
        Attribute::Port(operator) => {
            let address = written(operator)?;
            let (_, port) = address.rsplit_once(':')?;
            port.parse().ok().map(Value::Int)
        }
        Attribute::Query => {
            let path = Operator::Request {
                key: HeaderKey::Path,
                otherwise: None,
            };
            let path = written(&path)?;
            let query = path.split_once('?').map_or("", |(_, query)| query);
            Some(Value::Text(query.to_owned().into()))
        }
        Attribute::Flags => {
            let flags = written(&Operator::ResponseFlags)?;
            let flags = flags.split(',').filter_map(Flags::by_name);
            let all = flags.fold(Flags::NONE, |all, flag| all | flag);
            Some(Value::Int(all.bits().into()))
        }
    }
}

fn pair<'e>(
    between: Between,
    left: &'e Node,
    right: &'e Node,
    of: &dyn Values,
) -> Option<Value<'e>> {
    // Either side may decide alone, whatever is wrong with the other.
    if let Between::Or | Between::And = between {
        let decides = between == Between::Or;
        let first = truth(left, of);
        if first == Some(decides) {
            return Some(Value::Bool(decides));
        }
        return match (first, truth(right, of)) {
            (_, Some(second)) if second == decides => Some(Value::Bool(decides)),
            (Some(_), Some(_)) => Some(Value::Bool(!decides)),
            _ => None,
        };
    }
    let (left, right) = (value(left, of)?, value(right, of)?);
    let order = || compare(&left, &right);
    let texts = || match (&left, &right) {
        (Value::Text(text), Value::Text(part)) => Some((&**text, &**part)),
        _ => None,
    };
    Some(Value::Bool(match between {
        Between::Equal => same(&left, &right),
        Between::NotEqual => !same(&left, &right),
        Between::Less => order()? == Ordering::Less,
        Between::AtMost => order()? != Ordering::Greater,
        Between::Greater => order()? == Ordering::Greater,
        Between::AtLeast => order()? != Ordering::Less,
        Between::In => match &right {
            Value::List(values) => values.iter().any(|value| same(&left, value)),
            _ => return None,
        },
        Between::StartsWith => texts().map(|(text, part)| text.starts_with(part))?,
        Between::EndsWith => texts().map(|(text, part)| text.ends_with(part))?,
        Between::Contains => texts().map(|(text, part)| text.contains(part))?,
        _ => return reckoned(between, left, right),
    }))
}

/// Numbers compare whatever their type is; values of other types are never the same.
fn same(left: &Value<'_>, right: &Value<'_>) -> bool {
    match (left, right) {
        (Value::Int(_), Value::Double(_)) | (Value::Double(_), Value::Int(_)) => {
            compare(left, right) == Some(Ordering::Equal)
        }
        (left, right) => left == right,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "as CEL compares numbers of both types"
)]
fn compare(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) | (Value::Duration(left), Value::Duration(right)) => {
            Some(left.cmp(right))
        }
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Int(left), Value::Double(right)) => (*left as f64).partial_cmp(right),
        (Value::Double(left), Value::Int(right)) => left.partial_cmp(&(*right as f64)),
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

/// Sums and the like; one that can't be told in its type is an error.
fn reckoned<'e>(between: Between, left: Value<'e>, right: Value<'e>) -> Option<Value<'e>> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => match between {
            Between::Plus => left.checked_add(right),
            Between::Minus => left.checked_sub(right),
            Between::Times => left.checked_mul(right),
            Between::Divided => left.checked_div(right),
            Between::Remainder => left.checked_rem(right),
            _ => None,
        }
        .map(Value::Int),
        (Value::Double(left), Value::Double(right)) => match between {
            Between::Plus => Some(left + right),
            Between::Minus => Some(left - right),
            Between::Times => Some(left * right),
            Between::Divided => Some(left / right),
            _ => None,
        }
        .map(Value::Double),
        (Value::Duration(left), Value::Duration(right)) => match between {
            Between::Plus => left.checked_add(right),
            Between::Minus => left.checked_sub(right),
            _ => None,
        }
        .map(Value::Duration),
        (Value::Text(left), Value::Text(right)) if between == Between::Plus => {
            Some(Value::Text(Cow::Owned(left.into_owned() + &right)))
        }
        _ => None,
    }
}

fn made<'e>(make: Make, of: Value<'e>) -> Option<Value<'e>> {
    match (make, of) {
        (Make::Size, Value::Text(text)) => text.chars().count().try_into().ok().map(Value::Int),
        (Make::Size, Value::List(list)) => list.len().try_into().ok().map(Value::Int),
        (Make::Text, text @ Value::Text(_)) => Some(text),
        (Make::Text, of) => {
            let mut text = String::new();
            print(&of, &mut text).then_some(Value::Text(text.into()))
        }
        (Make::Int, number @ Value::Int(_)) => Some(number),
        (Make::Int, Value::Text(text)) => text.parse().ok().map(Value::Int),
        #[expect(clippy::cast_possible_truncation, reason = "the bounds were looked at")]
        (Make::Int, Value::Double(number)) => {
            (number.abs() < 9e18).then_some(Value::Int(number as i64))
        }
        (Make::Double, number @ Value::Double(_)) => Some(number),
        (Make::Double, Value::Text(text)) => text.parse().ok().map(Value::Double),
        #[expect(clippy::cast_precision_loss, reason = "as CEL converts numbers")]
        (Make::Double, Value::Int(number)) => Some(Value::Double(number as f64)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
