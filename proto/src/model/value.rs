//! Values and cells.

use std::sync::Arc;

use super::fields::Field;

/// What a field can hold. Booleans and enumerations are integers by their table (see [`super::fields`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An integer, below 2^53 in magnitude.
    Int(i64),
    /// A text of at most [`crate::limits::MAX_TEXT`] bytes.
    Text(Arc<str>),
}

impl Value {
    /// The integer, if it is one.
    #[must_use]
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(v) => Some(*v),
            Self::Text(_) => None,
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Int(_) => None,
            Self::Text(v) => Some(v),
        }
    }
}

impl From<i64> for Value {
    fn from(v: i64) -> Self {
        Self::Int(v)
    }
}

impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::Text(v.into())
    }
}

/// A field's value and the log number of its last change.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// `None` where the field is not set.
    pub value: Option<Value>,
    /// Log number of the last change; 0 where never changed.
    pub stamp: u64,
}

/// One cell for each field of a table. Equality is of values: stamps say when, not what.
#[derive(Debug, Clone)]
pub struct Cells<F, const N: usize> {
    cells: [Cell; N],
    fields: std::marker::PhantomData<F>,
}

impl<F: Field, const N: usize> Default for Cells<F, N> {
    fn default() -> Self {
        Self { cells: std::array::from_fn(|_| Cell::default()), fields: std::marker::PhantomData }
    }
}

impl<F: Field, const N: usize> PartialEq for Cells<F, N> {
    fn eq(&self, other: &Self) -> bool {
        self.cells.iter().zip(&other.cells).all(|(a, b)| a.value == b.value)
    }
}

impl<F: Field, const N: usize> Eq for Cells<F, N> {}

impl<F: Field, const N: usize> Cells<F, N> {
    /// The value of a field.
    #[must_use]
    pub fn get(&self, field: F) -> Option<&Value> {
        self.cells[field.index()].value.as_ref()
    }

    /// The integer of a field, if set.
    #[must_use]
    pub fn int(&self, field: F) -> Option<i64> {
        self.get(field).and_then(Value::int)
    }

    /// The text of a field, if set.
    #[must_use]
    pub fn text(&self, field: F) -> Option<&str> {
        self.get(field).and_then(Value::text)
    }

    /// Sets a field; `stamp` is the log number of this change.
    pub fn set(&mut self, field: F, value: Option<Value>, stamp: u64) {
        self.cells[field.index()] = Cell { value, stamp };
    }

    /// Log number of a field's last change.
    #[must_use]
    pub fn stamp(&self, field: F) -> u64 {
        self.cells[field.index()].stamp
    }

    /// Notes the log number of a field's last change.
    pub(crate) fn touch(&mut self, field: F, stamp: u64) {
        self.cells[field.index()].stamp = stamp;
    }

    /// All fields that are set, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (F, &Value)> {
        F::ALL.iter().filter_map(|f| self.get(*f).map(|v| (*f, v)))
    }

    /// All cells, in the order of the table.
    pub fn cells(&self) -> impl Iterator<Item = (F, &Cell)> {
        F::ALL.iter().map(|f| (*f, &self.cells[f.index()]))
    }

    /// Stamps every cell that is set.
    pub fn restamp(&mut self, stamp: u64) {
        for cell in &mut self.cells {
            cell.stamp = stamp;
        }
    }
}
