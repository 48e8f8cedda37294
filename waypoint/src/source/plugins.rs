//! The code of plugins: fetched and compiled as they are met, away from the workers. Where that fails
//! it is tried again later, with pauses that grow, for as long as anybody wants the plugin.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::compile::Compile;
use super::feed::Feed;
use crate::model::wasm::{Module, Plugin};
use crate::wasm::load::Loader;

/// The first pause after a failure, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Sees to the code of plugins, forever.
pub async fn run<C: Compile + Send + 'static>(feed: Feed<C>, loader: Loader) {
    let loader = Arc::new(loader);
    loop {
        let plugins = feed.look(|store| store.take_plugins());
        for plugin in plugins {
            let plugin = Arc::downgrade(&plugin);
            tokio::spawn(see_to(plugin, loader.clone(), feed.clone()));
        }
        feed.plugins_come().await;
    }
}

async fn see_to<C: Compile>(plugin: Weak<Plugin>, loader: Arc<Loader>, feed: Feed<C>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(settings) = plugin.upgrade().map(|plugin| plugin.settings.clone()) else {
            return;
        };
        let loaded = loader.load(&settings).await;
        let Some(plugin) = plugin.upgrade() else {
            return;
        };
        let name = &settings.name;
        let failed = match loaded {
            Ok(compiled) => {
                tracing::info!(plugin = %name, "a plugin's code is there");
                plugin.module.store(Arc::new(Module::Ready(compiled)));
                None
            }
            Err(error) => {
                let policy = settings.failure;
                tracing::error!(plugin = %name, error, ?policy, "a plugin's code can't be had");
                Some(Module::Failed(error.into()))
            }
        };
        let again = failed.is_some();
        if let Some(failed) = failed {
            plugin.module.store(Arc::new(failed));
        }
        drop(plugin);
        feed.loaded();
        if !again {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}
