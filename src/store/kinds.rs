//! Kinds of tasks: a definition's name, a named queue and a codec behind one small number.

use std::sync::Arc;

use rusqlite::Connection;

use super::sqlite::SqliteStore;
use super::work::Work;
use crate::codec::Codec;
use crate::queues::QueueIndex;

/// The number of a kind in one shard's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KindId(pub(super) i64);

/// What the tasks of a kind have in common.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub(super) name: Arc<str>,
    pub(super) queue: QueueIndex,
    /// `None` if this version doesn't know it.
    pub(super) codec: Option<Codec>,
    /// `None` if the name isn't registered in this process.
    pub(super) definition: Option<usize>,
    /// The start of its rows' checksums.
    pub(super) hasher: crc32fast::Hasher,
}

impl Kind {
    fn new(
        name: Arc<str>,
        queue: QueueIndex,
        codec: Option<Codec>,
        definition: Option<usize>,
    ) -> Kind {
        let hasher = super::row::name_hasher(&name);
        Kind { name, queue, codec, definition, hasher }
    }
}

/// No file has so many kinds.
const KINDS_MAX: usize = 1 << 20;

/// The kinds of a file, as they are in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Kinds {
    by_id: Vec<Option<Kind>>,
    /// Those of each registered definition: mostly one.
    of_definition: Vec<Vec<(QueueIndex, Codec, KindId)>>,
}

impl Kinds {
    pub(super) fn add(&mut self, id: KindId, kind: Kind) {
        if let (Some(definition), Some(codec)) = (kind.definition, kind.codec) {
            if self.of_definition.len() <= definition {
                self.of_definition.resize_with(definition + 1, Vec::new);
            }
            self.of_definition[definition].push((kind.queue, codec, id));
        }
        // SQLite numbers them from 1 on; one that damage put far away stays unknown
        let Some(at) = usize::try_from(id.0).ok().filter(|at| *at < KINDS_MAX) else { return };
        if self.by_id.len() <= at {
            self.by_id.resize(at + 1, None);
        }
        self.by_id[at] = Some(kind);
    }

    /// The kind of a registered definition's tasks, if the file has it.
    fn of(&self, definition: usize, queue: QueueIndex, codec: Codec) -> Option<KindId> {
        let kinds = self.of_definition.get(definition)?;
        let found = kinds.iter().find(|(of, with, _)| (*of, *with) == (queue, codec))?;
        Some(found.2)
    }

    /// What a number stands for; none that damage wrote.
    pub(super) fn get(&self, id: KindId) -> Option<&Kind> {
        self.by_id.get(usize::try_from(id.0).ok()?)?.as_ref()
    }

    pub(super) fn definition(&self, id: KindId) -> Option<usize> {
        self.get(id)?.definition
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (KindId, &Kind)> {
        let known = (0..).zip(&self.by_id);
        known.filter_map(|(id, kind)| Some((KindId(id), kind.as_ref()?)))
    }

    fn find(&self, name: &str, queue: QueueIndex, codec: Codec) -> Option<KindId> {
        let same =
            |kind: &Kind| &*kind.name == name && kind.queue == queue && kind.codec == Some(codec);
        self.iter().find(|(_, kind)| same(kind)).map(|(id, _)| id)
    }
}

const KINDS: &str = "select id, name, queue, codec from kind";

const INSERT_KIND: &str = "insert into kind (name, queue, codec) values (?1, ?2, ?3)";

fn insert(
    connection: &Connection,
    name: &str,
    queue: &str,
    codec: Codec,
) -> rusqlite::Result<KindId> {
    connection.prepare_cached(INSERT_KIND)?.execute((name, queue, codec.code()))?;
    Ok(KindId(connection.last_insert_rowid()))
}

impl SqliteStore {
    /// Reads the stored kinds. Each that this process may run has a window from now on.
    pub(super) fn load_kinds(&mut self) -> rusqlite::Result<()> {
        let mut select = self.connection.prepare(KINDS)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let (id, name): (i64, Arc<str>) = (row.get(0)?, row.get::<_, String>(1)?.into());
            let queue = self.options.queues.get_or_add(&row.get::<_, String>(2)?);
            let codec = super::row::codec(row.get(3)?);
            let definition = self.options.names.iter().position(|known| *known == name);
            if definition.is_some() {
                self.windows.add_stored(KindId(id));
            }
            self.kinds.add(KindId(id), Kind::new(name, queue, codec, definition));
        }
        Ok(())
    }
}

impl Work<'_> {
    /// The kind of a registered definition's task, stored if this is the first of it.
    pub(super) fn kind_of(
        &mut self,
        definition: usize,
        queue: QueueIndex,
        codec: Codec,
    ) -> rusqlite::Result<KindId> {
        if let Some(id) = self.store.kinds.of(definition, queue, codec) {
            return Ok(id);
        }
        let name = self.store.options.names[definition].clone();
        self.new_kind(&name, queue, codec, Some(definition))
    }

    /// The kind of a durable callback, whose name needn't be registered in this process.
    pub(super) fn kind_of_callback(&mut self, name: &Arc<str>) -> rusqlite::Result<KindId> {
        let options = &self.store.options;
        let definition = options.names.iter().position(|known| known == name);
        let queue = definition.and_then(|index| options.queue_of.get(index)).copied();
        let (queue, codec) = (queue.unwrap_or_default(), Codec::default());
        match definition {
            Some(definition) => self.kind_of(definition, queue, codec),
            None => match self.store.kinds.find(name, queue, codec) {
                Some(id) => Ok(id),
                None => self.new_kind(name, queue, codec, None),
            },
        }
    }

    fn new_kind(
        &mut self,
        name: &Arc<str>,
        queue: QueueIndex,
        codec: Codec,
        definition: Option<usize>,
    ) -> rusqlite::Result<KindId> {
        let same =
            |kind: &Kind| kind.name == *name && kind.queue == queue && kind.codec == Some(codec);
        if let Some((id, _)) = self.changes.kinds.iter().find(|(_, kind)| same(kind)) {
            return Ok(*id);
        }
        let queue_name = self.store.options.queues.get(queue).name.clone();
        let id = insert(self.connection(), name, &queue_name, codec)?;
        let kind = Kind::new(name.clone(), queue, Some(codec), definition);
        self.changes.kinds.push((id, kind));
        Ok(id)
    }

    /// What a number stands for, also of a kind that this transaction stored.
    pub(super) fn kind(&self, id: KindId) -> Option<&Kind> {
        let fresh = || self.changes.kinds.iter().find(|(known, _)| *known == id);
        self.store.kinds.get(id).or_else(|| fresh().map(|(_, kind)| kind))
    }
}
