//! Reading the parameters of a request body, with errors that name the parameter.
//!
//! A parameter that is absent and one that is null mean the same. Unknown parameters are ignored, as
//! clients of this API expect.

use alloc::{format, string::String};
use core::{fmt::Display, ops::RangeInclusive};

use serde_json::{Map, Value};

use super::ApiError;

/// A JSON object whose members are parameters.
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// Where the object stands in the request: empty, or "messages[0]", say.
    path: String,
}

impl<'a> Fields<'a> {
    /// The parameters of a whole request body.
    pub(super) fn new(object: &'a Map<String, Value>) -> Self {
        Self {
            object,
            path: String::new(),
        }
    }

    /// The members of `value`, which stands at `path` and must be an object.
    pub(super) fn nested(value: &'a Value, path: String) -> Result<Self, ApiError> {
        match value {
            Value::Object(object) => Ok(Self { object, path }),
            _ => Err(ApiError::invalid(
                path.as_str(),
                format!("`{path}` must be an object"),
            )),
        }
    }

    /// The full name of a parameter, as error messages give it.
    pub(super) fn name(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.into()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// The error that `name` is not `expected`.
    pub(super) fn mismatch(&self, name: &str, expected: impl Display) -> ApiError {
        let name = self.name(name);
        let message = format!("`{name}` must be {expected}");
        ApiError::invalid(name, message)
    }

    /// The value of a parameter, unless it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.mismatch(name, "true or false")),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(_) => Err(self.mismatch(name, "a string")),
        }
    }

    /// A number in `range`.
    pub(super) fn number(
        &self,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) if range.contains(&number) => Ok(Some(number as f32)),
            _ => {
                let (least, most) = (range.start(), range.end());
                Err(self.mismatch(name, format_args!("a number from {least} to {most}")))
            }
        }
    }

    /// A whole number in `range`.
    pub(super) fn integer(
        &self,
        name: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
        {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let (least, most) = (range.start(), range.end());
                Err(self.mismatch(name, format_args!("an integer from {least} to {most}")))
            }
        }
    }

    /// An array, which may be empty.
    pub(super) fn array(&self, name: &str) -> Result<Option<&'a [Value]>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(_) => Err(self.mismatch(name, "an array")),
        }
    }

    /// An object, as parameters of its own.
    pub(super) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ApiError> {
        self.get(name)
            .map(|value| Fields::nested(value, self.name(name)))
            .transpose()
    }

    /// All members, by name.
    pub(super) fn members(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.object
            .iter()
            .map(|(name, value)| (name.as_str(), value))
    }
}
