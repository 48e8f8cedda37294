//! Claims as they are passed on: one by its path as a header's text, and all of them as later
//! filters see them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// A claim by its path, whose names are separated by dots.
pub(super) fn claim<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    let mut names = path.split('.');
    let first = claims.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

/// A claim as a header's text. Numbers look as Envoy writes them; an empty text sets nothing.
pub(super) fn claim_text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(float)) if float >= 0.0 && float.fract() == 0.0 => format!("{float:.0}"),
            (None, float) => format!("{:.6}", float.unwrap_or_default()),
        },
        // What is no single value goes as JSON in base64.
        Value::Array(_) | Value::Object(_) => STANDARD.encode(value.to_string()),
        Value::Null => return None,
    };
    (!text.is_empty()).then_some(text)
}

/// The claims as later filters see them: lists that came as text are lists.
pub(super) fn normalised(claims: &Map<String, Value>, delimited: &[Box<str>]) -> Value {
    let mut claims = claims.clone();
    for name in delimited {
        if let Some(value) = claims.get_mut(&**name)
            && let Some(text) = value.as_str()
        {
            let list = text.split(' ').filter(|one| !one.is_empty());
            *value = Value::Array(list.map(Value::from).collect());
        }
    }
    Value::Object(claims)
}
