//! What was brought, for programs and for people.

use std::collections::BTreeMap;
use std::time::Duration;

use draught_oci::Descriptor;
use serde::Serialize;

use super::blobs::Brought;
use super::tree::Tree;
use super::write::Written;
use crate::output;
use crate::units::{Seconds, Size};

/// In the shape that `--format json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    image: String,
    namespace: String,
    digest: String,
    seconds: f64,
    /// What containerd had.
    present: Amount,
    /// What was brought, and from where; by place.
    fetched: BTreeMap<String, Amount>,
    /// What came from this node's store.
    from_store: Amount,
    /// What was left of writes that were cut off, or is there for other namespaces, and is used.
    resumed_bytes: u64,
    /// What somebody else brought in the meantime.
    by_others: Amount,
    blobs: Vec<Blob>,
    /// Layers that are not for registries, and stay away.
    left_out: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Amount {
    blobs: usize,
    bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.blobs += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

#[derive(Debug, Serialize)]
struct Blob {
    digest: String,
    media_type: String,
    bytes: u64,
    /// Where it is from; null when it was there or somebody else brought it.
    from: Option<String>,
    fetched_bytes: u64,
    /// How much of it is from this node's store.
    store_bytes: u64,
}

impl Report {
    pub(crate) fn new(
        (image, namespace): (&str, &str),
        target: &Descriptor,
        tree: &Tree,
        brought: Vec<Brought>,
        took: Duration,
    ) -> Self {
        let documents = tree.fetched.iter().map(|(descriptor, from)| Brought {
            descriptor: descriptor.clone(),
            from: from.clone(),
            written: Written::Here {
                fetched_bytes: descriptor.size,
            },
            local_bytes: 0,
        });
        let mut report = Self {
            image: image.to_owned(),
            namespace: namespace.to_owned(),
            digest: target.digest.to_string(),
            seconds: took.as_secs_f64(),
            present: Amount::default(),
            fetched: BTreeMap::new(),
            from_store: Amount::default(),
            resumed_bytes: 0,
            by_others: Amount::default(),
            blobs: Vec::new(),
            left_out: Vec::new(),
        };
        tree.present
            .iter()
            .for_each(|it| report.present.add(it.size));
        report
            .left_out
            .extend(tree.left_out.iter().map(|it| it.digest.to_string()));
        documents.chain(brought).for_each(|it| report.add(&it));
        report
    }

    fn add(&mut self, brought: &Brought) {
        let size = brought.descriptor.size;
        let mut store_bytes = 0;
        let fetched_bytes = match brought.written {
            Written::Here { fetched_bytes } => {
                store_bytes = brought.local_bytes.min(fetched_bytes);
                if store_bytes > 0 {
                    self.from_store.add(store_bytes);
                }
                self.resumed_bytes += size.saturating_sub(fetched_bytes);
                let fetched_bytes = fetched_bytes - store_bytes;
                let from = Some(&brought.from).filter(|_| fetched_bytes > 0 || size == 0);
                if let Some(from) = from {
                    let amount = self.fetched.entry(from.clone()).or_default();
                    amount.add(fetched_bytes);
                }
                from.map(|_| fetched_bytes)
            }
            Written::BySomebodyElse => {
                self.by_others.add(size);
                None
            }
        };
        self.blobs.push(Blob {
            digest: brought.descriptor.digest.to_string(),
            media_type: brought.descriptor.media_type.clone(),
            bytes: size,
            from: fetched_bytes.map(|_| brought.from.clone()),
            fetched_bytes: fetched_bytes.unwrap_or(0),
            store_bytes,
        });
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut rows = vec![vec![
            "from".to_owned(),
            "blobs".to_owned(),
            "bytes".to_owned(),
        ]];
        let mut row = |name: &str, amount: Amount| {
            if amount.blobs > 0 {
                let cells = [amount.blobs.to_string(), Size(amount.bytes).to_string()];
                rows.push([vec![name.to_owned()], cells.to_vec()].concat());
            }
        };
        row("containerd had", self.present);
        for (place, amount) in &self.fetched {
            row(place, *amount);
        }
        row("this node's store", self.from_store);
        row("others brought", self.by_others);
        let mut text = output::table(&rows);
        if self.resumed_bytes > 0 {
            let resumed = Size(self.resumed_bytes);
            text.push_str(&format!(
                "{resumed} were there: left of writes that were cut off, or in other namespaces\n"
            ));
        }
        for digest in &self.left_out {
            text.push_str(&format!("{digest} is not for registries and stays away\n"));
        }
        let took = Seconds(Duration::from_secs_f64(self.seconds));
        text.push_str(&format!(
            "{} is whole\n{} in {took}\n",
            self.image, self.digest
        ));
        text
    }
}
