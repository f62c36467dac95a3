//! Small valid record batches for tests, made by hand so that nothing checks itself.

use crate::batch::CRC_COVERED_FROM;

/// One batch to be encoded, uncompressed, keys absent.
#[derive(Clone, Copy, Debug)]
pub struct SampleBatch {
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub records: i32,
    pub timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub value_bytes: usize,
}

impl Default for SampleBatch {
    fn default() -> Self {
        Self {
            base_offset: 0,
            leader_epoch: 0,
            records: 1,
            timestamp: 1_000,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            value_bytes: 10,
        }
    }
}

impl SampleBatch {
    pub fn encode(&self) -> Vec<u8> {
        let mut records = Vec::new();
        for number in 0..self.records {
            let mut record = vec![0u8];
            varint(&mut record, 0);
            varint(&mut record, i64::from(number));
            varint(&mut record, -1);
            varint(&mut record, self.value_bytes as i64);
            record.extend(std::iter::repeat_n(b'v', self.value_bytes));
            varint(&mut record, 0);
            varint(&mut records, record.len() as i64);
            records.extend_from_slice(&record);
        }
        let mut covered = Vec::new();
        covered.extend_from_slice(&0i16.to_be_bytes());
        covered.extend_from_slice(&(self.records - 1).to_be_bytes());
        covered.extend_from_slice(&self.timestamp.to_be_bytes());
        covered.extend_from_slice(&self.timestamp.to_be_bytes());
        covered.extend_from_slice(&self.producer_id.to_be_bytes());
        covered.extend_from_slice(&self.producer_epoch.to_be_bytes());
        covered.extend_from_slice(&self.base_sequence.to_be_bytes());
        covered.extend_from_slice(&self.records.to_be_bytes());
        covered.extend_from_slice(&records);
        let mut batch = Vec::new();
        batch.extend_from_slice(&self.base_offset.to_be_bytes());
        batch.extend_from_slice(&((covered.len() + 9) as i32).to_be_bytes());
        batch.extend_from_slice(&self.leader_epoch.to_be_bytes());
        batch.push(2);
        batch.extend_from_slice(&crc32c::crc32c(&covered).to_be_bytes());
        assert_eq!(batch.len(), CRC_COVERED_FROM);
        batch.extend_from_slice(&covered);
        batch
    }
}

fn varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}
