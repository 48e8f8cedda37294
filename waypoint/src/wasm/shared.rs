//! What plugins on all workers have between them: values by keys, queues, numbers for
//! Prometheus, each bounded, since plugins fill them; and who the proxy is.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;

use super::abi::Status;
use super::metrics::Metrics;

/// Bytes of keys and values that plugins of one `vm_id` share.
const MOST_BYTES: usize = 16 << 20;
/// What a key and its value are reckoned at beside their bytes.
const ENTRY: usize = 128;
/// Queues in all, and the bytes of a name.
const MOST_QUEUES: usize = 256;
const LONGEST_NAME: usize = 512;
/// Messages that wait in one queue, and their bytes.
const MOST_WAITING: usize = 4096;
const MOST_WAITING_BYTES: usize = 4 << 20;
/// Plugins that listen to one queue.
const MOST_LISTENERS: usize = 1024;

/// What plugins share. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    pub(super) data: Arc<Data>,
    pub(super) queues: Arc<Queues>,
    /// Numbers for Prometheus.
    pub metrics: Arc<Metrics>,
    /// Who the proxy is, as it says to its control plane.
    pub(super) node: Arc<Value>,
}

impl Shared {
    /// Of a proxy that is called so.
    #[must_use]
    pub fn of(node: Value) -> Self {
        Self {
            node: Arc::new(node),
            ..Self::default()
        }
    }
}

/// Values by keys.
#[derive(Debug, Default)]
pub(super) struct Data(Mutex<HashMap<Box<str>, Values>>);

#[derive(Debug, Default)]
struct Values {
    by_key: HashMap<Vec<u8>, (Arc<[u8]>, u32)>,
    bytes: usize,
    last: u32,
}

impl Data {
    /// A value and the number of its version.
    pub(super) fn get(&self, vm_id: &str, key: &[u8]) -> Option<(Arc<[u8]>, u32)> {
        self.0.lock().get(vm_id)?.by_key.get(key).cloned()
    }

    /// Sets a value; where `cas` is given, only in place of the version of that number.
    pub(super) fn set(
        &self,
        vm_id: &str,
        key: Vec<u8>,
        value: Vec<u8>,
        cas: u32,
    ) -> Result<(), Status> {
        let mut all = self.0.lock();
        let values = all.entry(vm_id.into()).or_default();
        let before = values.by_key.get(&key);
        if cas != 0 && before.is_some_and(|(_, version)| *version != cas) {
            return Err(Status::CasMismatch);
        }
        let reckoned = |value: usize| ENTRY + key.len() + value;
        let known = before.map_or(0, |(value, _)| reckoned(value.len()));
        let bytes = values.bytes - known + reckoned(value.len());
        if bytes > MOST_BYTES {
            return Err(Status::InternalFailure);
        }
        values.bytes = bytes;
        // 0 means that any version will do.
        values.last = values.last.wrapping_add(1).max(1);
        values.by_key.insert(key, (value.into(), values.last));
        Ok(())
    }
}

/// Queues by their numbers.
#[derive(Debug, Default)]
pub(super) struct Queues(Mutex<BTreeMap<u32, Queue>>);

#[derive(Debug)]
struct Queue {
    vm_id: Box<str>,
    name: Box<str>,
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    listeners: Vec<mpsc::Sender<u32>>,
    next: usize,
}

impl Queues {
    /// A plugin listens to a queue, which is made where there is none of this name.
    pub(super) fn register(
        &self,
        vm_id: &str,
        name: &str,
        listener: mpsc::Sender<u32>,
    ) -> Option<u32> {
        let mut queues = self.0.lock();
        let known = queues.iter().find(|(_, queue)| queue.is(vm_id, name));
        let id = match known {
            Some((id, _)) => *id,
            None if queues.len() >= MOST_QUEUES || name.len() > LONGEST_NAME => return None,
            None => {
                let id = queues.last_key_value().map_or(1, |(last, _)| last + 1);
                let queue = Queue {
                    vm_id: vm_id.into(),
                    name: name.into(),
                    waiting: VecDeque::new(),
                    bytes: 0,
                    listeners: Vec::new(),
                    next: 0,
                };
                queues.insert(id, queue);
                id
            }
        };
        let listeners = &mut queues.get_mut(&id)?.listeners;
        // Plugins that have ended listen no longer.
        listeners.retain(|known| !known.is_closed() && !known.same_channel(&listener));
        if listeners.len() >= MOST_LISTENERS {
            return None;
        }
        listeners.push(listener);
        Some(id)
    }

    /// The number of a queue.
    pub(super) fn resolve(&self, vm_id: &str, name: &str) -> Option<u32> {
        let queues = self.0.lock();
        let mut queues = queues.iter();
        queues.find_map(|(id, queue)| queue.is(vm_id, name).then_some(*id))
    }

    /// Puts a message into a queue, and tells one of those that listen.
    pub(super) fn put(&self, id: u32, message: Vec<u8>) -> Result<(), Status> {
        let mut queues = self.0.lock();
        let queue = queues.get_mut(&id).ok_or(Status::NotFound)?;
        let bytes = queue.bytes + message.len();
        if queue.waiting.len() >= MOST_WAITING || bytes > MOST_WAITING_BYTES {
            return Err(Status::InternalFailure);
        }
        queue.bytes = bytes;
        queue.waiting.push_back(message);
        for _ in 0..queue.listeners.len() {
            queue.next = (queue.next + 1) % queue.listeners.len();
            // Who has more to hear of than it can is told of this one by what it hears already.
            if queue.listeners[queue.next].try_send(id).is_ok() {
                break;
            }
        }
        Ok(())
    }

    /// Takes the message that waits longest.
    pub(super) fn take(&self, id: u32) -> Result<Vec<u8>, Status> {
        let mut queues = self.0.lock();
        let queue = queues.get_mut(&id).ok_or(Status::NotFound)?;
        let message = queue.waiting.pop_front().ok_or(Status::Empty)?;
        queue.bytes -= message.len();
        Ok(message)
    }
}

impl Queue {
    fn is(&self, vm_id: &str, name: &str) -> bool {
        *self.vm_id == *vm_id && *self.name == *name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_set_only_in_place_of_the_version_that_was_seen() {
        let data = Data::default();
        assert_eq!(data.get("vm", b"a"), None);
        data.set("vm", b"a".to_vec(), b"1".to_vec(), 0).unwrap();
        let (value, version) = data.get("vm", b"a").unwrap();
        assert_eq!((&*value, version), (&b"1"[..], 1));
        data.set("vm", b"a".to_vec(), b"2".to_vec(), version)
            .unwrap();
        let late = data.set("vm", b"a".to_vec(), b"3".to_vec(), version);
        assert_eq!(late, Err(Status::CasMismatch));
        assert_eq!(&*data.get("vm", b"a").unwrap().0, b"2");
        assert_eq!(data.get("other", b"a"), None);
    }

    #[test]
    fn what_is_shared_is_bounded() {
        let data = Data::default();
        let large = vec![0; MOST_BYTES - ENTRY];
        let refused = data.set("vm", b"a".to_vec(), large.clone(), 0);
        assert_eq!(refused, Err(Status::InternalFailure));
        data.set("vm", Vec::new(), large, 0).unwrap();
        data.set("vm", Vec::new(), vec![1], 0).unwrap();
        data.set("vm", b"a".to_vec(), vec![1], 0).unwrap();
        let mut keys = (0_u32..).map(|key| data.set("many", key.to_le_bytes().to_vec(), vec![], 0));
        assert!(keys.position(|set| set.is_err()).unwrap() <= MOST_BYTES / ENTRY);
        let queues = Queues::default();
        let (listener, _heard) = mpsc::channel(1);
        let long = "q".repeat(LONGEST_NAME + 1);
        assert_eq!(queues.register("vm", &long, listener.clone()), None);
        let id = queues.register("vm", "q", listener).unwrap();
        for _ in 0..MOST_WAITING {
            queues.put(id, Vec::new()).unwrap();
        }
        assert_eq!(queues.put(id, Vec::new()), Err(Status::InternalFailure));
    }

    #[test]
    fn a_message_goes_to_one_of_those_that_listen() {
        let queues = Queues::default();
        let (first, mut heard_first) = mpsc::channel(4);
        let (second, mut heard_second) = mpsc::channel(4);
        let id = queues.register("vm", "q", first).unwrap();
        assert_eq!(queues.register("vm", "q", second), Some(id));
        assert_eq!(queues.resolve("vm", "q"), Some(id));
        assert_eq!(queues.resolve("vm", "r"), None);
        queues.put(id, b"1".to_vec()).unwrap();
        queues.put(id, b"2".to_vec()).unwrap();
        assert_eq!(heard_first.try_recv(), Ok(id));
        assert_eq!(heard_second.try_recv(), Ok(id));
        assert_eq!(queues.take(id).unwrap(), b"1");
        assert_eq!(queues.take(id).unwrap(), b"2");
        assert_eq!(queues.take(id), Err(Status::Empty));
        assert_eq!(queues.take(id + 1), Err(Status::NotFound));
    }
}
