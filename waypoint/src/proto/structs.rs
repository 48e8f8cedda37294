//! Protobuf's `Struct`, which is JSON in other words, to and fro.

use envoy_types::pb::google::protobuf as google;
use google::value::Kind;
use serde_json::{Map, Value};

/// A struct as an object.
#[must_use]
pub fn object(of: google::Struct) -> Map<String, Value> {
    let fields = of.fields.into_iter();
    fields.map(|(key, value)| (key, json(value))).collect()
}

fn json(value: google::Value) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => whole(number).unwrap_or_else(|| number.into()),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::BoolValue(bool)) => Value::Bool(bool),
        Some(Kind::StructValue(of)) => Value::Object(object(of)),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json).collect(),
    }
}

/// Numbers are floating in a struct: a whole one is written as such, for fields that are whole.
fn whole(number: f64) -> Option<Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is whole and small enough"
    )]
    (number.fract() == 0.0 && number.abs() <= EXACT).then(|| Value::from(number as i64))
}

/// An object as a struct.
#[must_use]
pub fn structure(of: &Map<String, Value>) -> google::Struct {
    let fields = of.iter().map(|(key, value)| (key.clone(), protobuf(value)));
    google::Struct {
        fields: fields.collect(),
    }
}

fn protobuf(value: &Value) -> google::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(bool) => Kind::BoolValue(*bool),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(list) => Kind::ListValue(google::ListValue {
            values: list.iter().map(protobuf).collect(),
        }),
        Value::Object(of) => Kind::StructValue(structure(of)),
    };
    google::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_goes_there_and_back() {
        let value = json!({"a": [1, 2.5, null, true], "b": {"c": "d"}});
        let of = value.as_object().unwrap();
        assert_eq!(&object(structure(of)), of);
    }
}
