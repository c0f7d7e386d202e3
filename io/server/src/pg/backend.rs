//! What the server sends, written straight into the connection's output buffer.

use super::frontend::Formats;
use super::types;
use chronos_sql::zone::Zone;
use chronos_sql::{Batch, ColumnDesc, Notice, SqlError, TransactionStatus, oid};

/// Output that has not been sent yet.
#[derive(Debug, Default)]
pub struct Output {
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Output {
    fn message(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.push(kind);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        body(&mut self.bytes);
        let length = (self.bytes.len() - at) as i32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// AuthenticationOk.
    pub fn authentication_ok(&mut self) {
        self.message(b'R', |b| b.extend_from_slice(&0i32.to_be_bytes()));
    }

    /// AuthenticationSASL: one mechanism is offered.
    pub fn ask_sasl(&mut self, mechanism: &str) {
        self.message(b'R', |b| {
            b.extend_from_slice(&10i32.to_be_bytes());
            text(b, mechanism);
            b.push(0);
        });
    }

    /// AuthenticationSASLContinue.
    pub fn sasl_continue(&mut self, data: &str) {
        self.message(b'R', |b| {
            b.extend_from_slice(&11i32.to_be_bytes());
            b.extend_from_slice(data.as_bytes());
        });
    }

    /// AuthenticationSASLFinal.
    pub fn sasl_final(&mut self, data: &str) {
        self.message(b'R', |b| {
            b.extend_from_slice(&12i32.to_be_bytes());
            b.extend_from_slice(data.as_bytes());
        });
    }

    /// NegotiateProtocolVersion: minor 0, and the options that are not known.
    pub fn negotiate_version(&mut self, unknown: &[&str]) {
        self.message(b'v', |b| {
            b.extend_from_slice(&0i32.to_be_bytes());
            b.extend_from_slice(&(unknown.len() as i32).to_be_bytes());
            unknown.iter().for_each(|name| text(b, name));
        });
    }

    /// ParameterStatus.
    pub fn parameter(&mut self, name: &str, value: &str) {
        self.message(b'S', |b| {
            text(b, name);
            text(b, value);
        });
    }

    /// BackendKeyData.
    pub fn key_data(&mut self, pid: i32, secret: i32) {
        self.message(b'K', |b| {
            b.extend_from_slice(&pid.to_be_bytes());
            b.extend_from_slice(&secret.to_be_bytes());
        });
    }

    /// ReadyForQuery.
    pub fn ready(&mut self, status: TransactionStatus) {
        let letter = match status {
            TransactionStatus::Idle => b'I',
            TransactionStatus::InTransaction => b'T',
            TransactionStatus::Failed => b'E',
        };
        self.bytes.extend_from_slice(&[b'Z', 0, 0, 0, 5, letter]);
    }

    /// ParseComplete.
    pub fn parse_complete(&mut self) {
        self.bytes.extend_from_slice(b"1\0\0\0\x04");
    }

    /// BindComplete.
    pub fn bind_complete(&mut self) {
        self.bytes.extend_from_slice(b"2\0\0\0\x04");
    }

    /// CloseComplete.
    pub fn close_complete(&mut self) {
        self.bytes.extend_from_slice(b"3\0\0\0\x04");
    }

    /// NoData.
    pub fn no_data(&mut self) {
        self.bytes.extend_from_slice(b"n\0\0\0\x04");
    }

    /// EmptyQueryResponse.
    pub fn empty_query(&mut self) {
        self.bytes.extend_from_slice(b"I\0\0\0\x04");
    }

    /// PortalSuspended.
    pub fn portal_suspended(&mut self) {
        self.bytes.extend_from_slice(b"s\0\0\0\x04");
    }

    /// CommandComplete.
    pub fn complete(&mut self, tag: &str) {
        self.message(b'C', |b| text(b, tag));
    }

    /// ParameterDescription.
    pub fn parameters(&mut self, oids: impl ExactSizeIterator<Item = u32>) {
        self.message(b't', |b| {
            b.extend_from_slice(&(oids.len() as u16).to_be_bytes());
            oids.for_each(|oid| b.extend_from_slice(&oid.to_be_bytes()));
        });
    }

    /// RowDescription.
    pub fn columns(&mut self, columns: &[ColumnDesc], formats: &Formats) {
        self.message(b'T', |b| {
            b.extend_from_slice(&(columns.len() as u16).to_be_bytes());
            for (i, column) in columns.iter().enumerate() {
                text(b, &column.name);
                let (table, attribute) = column.origin.map_or((0, 0), |(t, c)| (t.0, c.0));
                b.extend_from_slice(&table.to_be_bytes());
                b.extend_from_slice(&(attribute as u16).to_be_bytes());
                b.extend_from_slice(&oid::of(column.ty).to_be_bytes());
                b.extend_from_slice(&oid::length(column.ty).to_be_bytes());
                b.extend_from_slice(&oid::modifier(column.ty).to_be_bytes());
                b.extend_from_slice(&u16::from(formats.binary(i)).to_be_bytes());
            }
        });
    }

    /// DataRow.
    pub fn row(&mut self, batch: &Batch, row: usize, columns: &[ColumnDesc], formats: &Formats, zone: &Zone) {
        self.message(b'D', |b| {
            b.extend_from_slice(&(columns.len() as u16).to_be_bytes());
            for (i, column) in columns.iter().enumerate() {
                types::write(b, batch.value(row, i), column.ty, formats.binary(i), zone);
            }
        });
    }

    /// CopyInResponse: the client may send its data.
    pub fn copy_in(&mut self, columns: usize, binary: bool) {
        self.copy(b'G', columns, binary);
    }

    /// CopyOutResponse: data follows.
    pub fn copy_out(&mut self, columns: usize, binary: bool) {
        self.copy(b'H', columns, binary);
    }

    fn copy(&mut self, kind: u8, columns: usize, binary: bool) {
        self.message(kind, |b| {
            b.push(u8::from(binary));
            b.extend_from_slice(&(columns as u16).to_be_bytes());
            (0..columns).for_each(|_| b.extend_from_slice(&u16::from(binary).to_be_bytes()));
        });
    }

    /// CopyData, unless there is nothing in it.
    pub fn copy_data(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.message(b'd', write);
        if self.bytes.len() == at + 5 {
            self.bytes.truncate(at);
        }
    }

    /// CopyDone.
    pub fn copy_done(&mut self) {
        self.bytes.extend_from_slice(b"c\0\0\0\x04");
    }

    /// ErrorResponse; `fatal` ends the session.
    pub fn error(&mut self, error: &SqlError, fatal: bool) {
        let severity = if fatal { "FATAL" } else { "ERROR" };
        self.message(b'E', |b| {
            fields(b, severity, error.code.as_str(), &error.message);
            let position = error.position.map(|p| p.to_string());
            let fields =
                [(b'D', &error.detail), (b'H', &error.hint), (b'P', &position), (b'W', &error.context)];
            for (kind, value) in fields {
                if let Some(value) = value {
                    field(b, kind, value);
                }
            }
            b.push(0);
        });
    }

    /// NoticeResponse.
    pub fn notice(&mut self, notice: &Notice) {
        let severity = if notice.warning { "WARNING" } else { "NOTICE" };
        self.message(b'N', |b| {
            fields(b, severity, notice.code.as_str(), &notice.message);
            b.push(0);
        });
    }
}

fn fields(b: &mut Vec<u8>, severity: &str, code: &str, message: &str) {
    field(b, b'S', severity);
    field(b, b'V', severity);
    field(b, b'C', code);
    field(b, b'M', message);
}

fn field(b: &mut Vec<u8>, kind: u8, value: &str) {
    b.push(kind);
    text(b, value);
}

/// A text with its end. A zero byte inside would end it early and garble what follows.
fn text(b: &mut Vec<u8>, value: &str) {
    b.extend(value.bytes().filter(|&byte| byte != 0));
    b.push(0);
}
