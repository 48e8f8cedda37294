//! What plugins of one `vm_id` share, on all workers: values by keys, and queues.

use super::{Functions, Guest, Status, give, read, text, told, write_number};

pub(super) fn put(functions: &mut Functions<'_>) -> wasmtime::Result<()> {
    functions.env(
        "proxy_get_shared_data",
        |mut guest: Guest<'_>, key: u32, length: u32, at: u32, length_at: u32, cas_at: u32| {
            let found = read(&guest, key, length).and_then(|key| {
                let state = guest.data();
                let data = &state.shared.data;
                data.get(&state.settings.vm_id, &key)
                    .ok_or(Status::NotFound)
            });
            told(found.and_then(|(value, cas)| {
                give(&mut guest, &value, at, length_at)?;
                write_number(&mut guest, cas_at, cas)
            }))
        },
    )?;
    functions.env(
        "proxy_set_shared_data",
        |guest: Guest<'_>, key: u32, length: u32, at: u32, value_length: u32, cas: u32| {
            let pair = read(&guest, key, length)
                .and_then(|key| Ok((key, read(&guest, at, value_length)?)));
            told(pair.and_then(|(key, value)| {
                let state = guest.data();
                state
                    .shared
                    .data
                    .set(&state.settings.vm_id, key, value, cas)
            }))
        },
    )?;
    functions.env(
        "proxy_register_shared_queue",
        |mut guest: Guest<'_>, name: u32, length: u32, at: u32| {
            let id = text(&guest, name, length).and_then(|name| {
                let state = guest.data();
                let (vm_id, queues) = (&state.settings.vm_id, &state.shared.queues);
                let id = queues.register(vm_id, &name, state.queues.clone());
                id.ok_or(Status::InternalFailure)
            });
            told(id.and_then(|id| write_number(&mut guest, at, id)))
        },
    )?;
    functions.env(
        "proxy_resolve_shared_queue",
        |mut guest: Guest<'_>, vm: u32, vm_length: u32, name: u32, length: u32, at: u32| {
            let id = text(&guest, vm, vm_length).and_then(|vm_id| {
                let name = text(&guest, name, length)?;
                let queues = &guest.data().shared.queues;
                queues.resolve(&vm_id, &name).ok_or(Status::NotFound)
            });
            told(id.and_then(|id| write_number(&mut guest, at, id)))
        },
    )?;
    functions.env(
        "proxy_dequeue_shared_queue",
        |mut guest: Guest<'_>, id: u32, at: u32, length_at: u32| {
            let taken = guest.data().shared.queues.take(id);
            told(taken.and_then(|value| give(&mut guest, &value, at, length_at)))
        },
    )?;
    functions.env(
        "proxy_enqueue_shared_queue",
        |guest: Guest<'_>, id: u32, at: u32, length: u32| {
            told(
                read(&guest, at, length)
                    .and_then(|value| guest.data().shared.queues.put(id, value)),
            )
        },
    )
}
