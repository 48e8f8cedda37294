//! Labels that routes ask of their callers (`sourceLabels`): waypoints are told these of every pod,
//! and no others, so that a mesh whose routes ask for none pays nothing.

use std::collections::BTreeMap;

use super::{Index, Output};
use crate::objects::Pod;
use crate::objects::routing::Spec;

/// By label: in how many matches it is asked for.
#[derive(Default)]
pub(super) struct Asked(BTreeMap<String, usize>);

impl Index {
    /// Takes in that a VirtualService asks for other labels than before.
    pub(super) fn ask_labels(&mut self, former: Option<&Spec>, now: Option<&Spec>) {
        let before: Vec<String> = self.l7.asked.0.keys().cloned().collect();
        for name in names(now) {
            *self.l7.asked.0.entry(name.to_owned()).or_default() += 1;
        }
        for name in names(former) {
            if let Some(count) = self.l7.asked.0.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.l7.asked.0.remove(name);
                }
            }
        }
        if !before.iter().eq(self.l7.asked.0.keys()) {
            self.dirty.extend(self.pods.keys().map(Output::Pod));
        }
    }

    /// What waypoints are told of a pod's labels.
    pub(in crate::index) fn told_labels<'a>(&'a self, pod: &'a Pod) -> Vec<(&'a str, &'a str)> {
        let asked = self.l7.asked.0.keys();
        asked
            .filter_map(|name| Some((name.as_str(), pod.labels.get(name)?.as_str())))
            .collect()
    }
}

fn names(spec: Option<&Spec>) -> impl Iterator<Item = &str> {
    let http = match spec {
        Some(Spec::VirtualService(spec)) => spec.http.as_slice(),
        _ => &[],
    };
    http.iter()
        .flat_map(|http| &http.r#match)
        .flat_map(|found| found.source_labels.keys().map(String::as_str))
}
