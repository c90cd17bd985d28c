//! Typed look-ups of metadata: what a model needs, or an error that names the key.

use alloc::format;

use super::{Array, Gguf, GgufError, Problem, Value, ValueType};

impl<'a> Gguf<'a> {
    /// The text of `key`, or `None` if the file lacks the key.
    ///
    /// # Errors
    /// The value is no string.
    pub fn string(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(GgufError::key(key, Problem::WrongType)),
        }
    }

    /// The truth value of `key`, or `None` if the file lacks the key.
    ///
    /// # Errors
    /// The value is no truth value.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(GgufError::key(key, Problem::WrongType)),
        }
    }

    /// The count or index under `key` (an integer of any width, at most `u32::MAX`), or `None` if the file lacks it.
    ///
    /// # Errors
    /// The value is no integer, negative, or too large.
    pub fn integer(&self, key: &str) -> Result<Option<usize>, GgufError> {
        let value = match self.get(key) {
            None => return Ok(None),
            Some(Value::Unsigned(value)) => u32::try_from(value).ok(),
            Some(Value::Signed(value)) => u32::try_from(value).ok(),
            Some(_) => return Err(GgufError::key(key, Problem::WrongType)),
        };
        match value {
            Some(value) => Ok(Some(value as usize)),
            None => Err(GgufError::key(
                key,
                Problem::BadValue("not between 0 and 4294967295".into()),
            )),
        }
    }

    /// The number under `key`, or `None` if the file lacks it.
    ///
    /// # Errors
    /// The value is no floating-point number, or not finite.
    pub fn float(&self, key: &str) -> Result<Option<f32>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(value)) if value.is_finite() && (value as f32).is_finite() => {
                Ok(Some(value as f32))
            }
            Some(Value::Float(_)) => {
                Err(GgufError::key(key, Problem::BadValue("not finite".into())))
            }
            Some(_) => Err(GgufError::key(key, Problem::WrongType)),
        }
    }

    /// The array of `kind` under `key`, or `None` if the file lacks it.
    ///
    /// # Errors
    /// The value is no array, or one of something else.
    pub fn array(&self, key: &str, kind: ValueType) -> Result<Option<Array<'a>>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if array.kind() == kind => Ok(Some(array)),
            Some(_) => Err(GgufError::key(key, Problem::WrongType)),
        }
    }

    /// Like [`integer`](Self::integer), for a key that must be there and lie in `1..=limit`.
    ///
    /// # Errors
    /// The key is missing, no integer, or out of range.
    pub fn positive(&self, key: &str, limit: usize) -> Result<usize, GgufError> {
        let value = self
            .integer(key)?
            .ok_or_else(|| GgufError::key(key, Problem::Missing))?;
        if value == 0 || value > limit {
            return Err(GgufError::key(
                key,
                Problem::BadValue(format!("{value} is not in 1..={limit}")),
            ));
        }
        Ok(value)
    }
}
