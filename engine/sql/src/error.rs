//! Errors as PostgreSQL reports them: five characters that programs match on, and words for people.

use std::fmt;

/// A SQLSTATE: five characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SqlState(pub [u8; 5]);

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl SqlState {
            $($(#[$doc])* pub const $name: SqlState = SqlState(*$code);)*
        }
    };
}

states! {
    /// Not an error: a warning.
    WARNING = b"01000";
    /// The outcome of a transaction is not known.
    TRANSACTION_RESOLUTION_UNKNOWN = b"08007";
    /// What was asked for does not exist here yet.
    FEATURE_NOT_SUPPORTED = b"0A000";
    /// A subquery used as a value gave several rows.
    CARDINALITY_VIOLATION = b"21000";
    /// Text longer than its type takes.
    STRING_TOO_LONG = b"22001";
    /// A number outside its type.
    NUMERIC_OUT_OF_RANGE = b"22003";
    /// A time that is not one.
    INVALID_DATETIME = b"22007";
    /// A time outside its range.
    DATETIME_OVERFLOW = b"22008";
    /// Division by zero.
    DIVISION_BY_ZERO = b"22012";
    /// A substring of negative length.
    SUBSTRING_ERROR = b"22011";
    /// A logarithm of zero or less.
    INVALID_LOGARITHM = b"2201E";
    /// A power that is not real.
    INVALID_POWER = b"2201F";
    /// A negative LIMIT.
    INVALID_LIMIT = b"2201W";
    /// A negative OFFSET.
    INVALID_OFFSET = b"2201X";
    /// A value that its function or setting does not take.
    INVALID_PARAMETER = b"22023";
    /// An escape that ends in nothing.
    INVALID_ESCAPE = b"22025";
    /// Text that is not UTF-8 or holds a zero byte.
    CHARACTER_NOT_IN_REPERTOIRE = b"22021";
    /// A character that the text cannot hold.
    UNTRANSLATABLE_CHARACTER = b"22P05";
    /// Dimensions or subscripts of an array that do not go together.
    ARRAY_SUBSCRIPT = b"2202E";
    /// Text that does not read as its type.
    INVALID_TEXT = b"22P02";
    /// NULL in a column that takes none.
    NOT_NULL_VIOLATION = b"23502";
    /// A key that is there already.
    UNIQUE_VIOLATION = b"23505";
    /// A statement inside a transaction that may not be.
    ACTIVE_TRANSACTION = b"25001";
    /// A write in a read-only transaction.
    READ_ONLY = b"25006";
    /// COMMIT or ROLLBACK outside a transaction.
    NO_ACTIVE_TRANSACTION = b"25P01";
    /// A statement after an error in a transaction.
    IN_FAILED_TRANSACTION = b"25P02";
    /// A transaction was open and idle for too long.
    IDLE_IN_TRANSACTION = b"25P03";
    /// The transaction conflicts with another: retry it.
    SERIALIZATION_FAILURE = b"40001";
    /// Text that is not SQL.
    SYNTAX_ERROR = b"42601";
    /// No such column.
    UNDEFINED_COLUMN = b"42703";
    /// No such function, or none for these types.
    UNDEFINED_FUNCTION = b"42883";
    /// No such table.
    UNDEFINED_TABLE = b"42P01";
    /// No such parameter.
    UNDEFINED_PARAMETER = b"42P02";
    /// No such type, index or other object.
    UNDEFINED_OBJECT = b"42704";
    /// A column named twice.
    DUPLICATE_COLUMN = b"42701";
    /// A table that is there already.
    DUPLICATE_TABLE = b"42P07";
    /// A table named twice in FROM.
    DUPLICATE_ALIAS = b"42712";
    /// An object that is there already.
    DUPLICATE_OBJECT = b"42710";
    /// A column name that could be several.
    AMBIGUOUS_COLUMN = b"42702";
    /// A function call that could be several.
    AMBIGUOUS_FUNCTION = b"42725";
    /// A parameter whose type nothing tells.
    INDETERMINATE_DATATYPE = b"42P18";
    /// A column outside GROUP BY, or an aggregate where none may be.
    GROUPING_ERROR = b"42803";
    /// A window function where none may be, or a window that makes no sense.
    WINDOWING_ERROR = b"42P20";
    /// Types that do not fit.
    DATATYPE_MISMATCH = b"42804";
    /// A cast that does not exist.
    CANNOT_COERCE = b"42846";
    /// The wrong kind of object.
    WRONG_OBJECT_TYPE = b"42809";
    /// A column reference where none may be, or the like.
    INVALID_COLUMN_REFERENCE = b"42P10";
    /// A definition that makes no sense.
    INVALID_TABLE_DEFINITION = b"42P16";
    /// A name too long or otherwise unfit.
    INVALID_NAME = b"42602";
    /// A longer name than names may be.
    NAME_TOO_LONG = b"42622";
    /// Not allowed to this user.
    INSUFFICIENT_PRIVILEGE = b"42501";
    /// A setting that cannot be changed.
    CANT_CHANGE_SETTING = b"55P02";
    /// Out of resources.
    INSUFFICIENT_RESOURCES = b"53000";
    /// The disk is full.
    DISK_FULL = b"53100";
    /// The statement's memory budget is used up.
    OUT_OF_MEMORY = b"53200";
    /// Too much at once.
    TOO_MANY = b"53400";
    /// Some limit was passed.
    LIMIT_EXCEEDED = b"54000";
    /// The statement is nested too deep.
    TOO_COMPLEX = b"54001";
    /// Too many columns.
    TOO_MANY_COLUMNS = b"54011";
    /// The statement was cancelled.
    CANCELED = b"57014";
    /// The node is shutting down.
    SHUTDOWN = b"57P01";
    /// The node cannot serve now.
    CANNOT_CONNECT_NOW = b"57P03";
    /// Stored data is damaged.
    DATA_CORRUPTED = b"XX001";
    /// The store could not be read.
    IO_ERROR = b"58030";
    /// A bug.
    INTERNAL = b"XX000";
}

impl SqlState {
    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a statement failed. It had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    /// What programs match on.
    pub code: SqlState,
    /// What happened, to what.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Where in the statement: a character count from 1.
    pub position: Option<u32>,
    /// Where it happened, if not in the statement: `COPY t, line 3`.
    pub context: Option<String>,
}

impl SqlError {
    /// With a code and a message alone.
    #[cold]
    pub fn new(code: SqlState, message: impl Into<String>) -> SqlError {
        SqlError { code, message: message.into(), detail: None, hint: None, position: None, context: None }
    }

    /// Something that is left out as yet.
    #[cold]
    pub fn unsupported(what: impl fmt::Display) -> SqlError {
        SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} is not supported"))
    }

    /// Adds a detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> SqlError {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> SqlError {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a position, a character count from 1.
    #[must_use]
    pub fn at(mut self, position: Option<u32>) -> SqlError {
        self.position = self.position.or(position);
        self
    }
}
