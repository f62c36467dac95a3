//! The handle: one method for each thing that can be asked.
//!
//! Called by: users. Calls: the task in `driver`, through a bounded channel.
//! Invariant: calls of one handle are sent in the order in which they were first polled, and answered
//! in that order.
//! It does not know whether a connection stands: calls wait for one.

use crate::config::Config;
use crate::contact::Contact;
use crate::driver::{Command, Driver, Reach};
use crate::error::Error;
use crate::root::Root;
use crate::session::{Call, Hook, OneShot, Reply, Session, SessionState};
use crate::subscription::{Subscription, SubscriptionSink};
use crate::watch::Watch;
use bytes::Bytes;
use coordinator_protocol::{
    Acl, AddWatchMode, AddWatchRequest, ChildrenPageRequest, CreateMode, CreateRequest,
    DeleteRequest, EnsembleInfo, ErrorCode, MultiOp, MultiResult, PathWatch, ReconfigRequest,
    Request, Response, SessionId, SetAclRequest, SetDataRequest, Stat, SubscribeRequest,
    TransferAnswer, TransferRequest, Zxid,
};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How many calls may wait for the task; more wait in their callers.
const COMMANDS_MAX: usize = 256;

/// A handle to one session. Clones share it; it is closed by [`Client::close`], or when the last one
/// is dropped.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: Root,
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<SessionState>,
    contact: Arc<Contact>,
    next_subscription: AtomicI32,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What a multi that was done came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiReply {
    /// The last write that the server had applied when it answered: the multi's or a later one.
    pub zxid: Zxid,
    /// The results, in the order of the operations.
    pub results: Vec<MultiResult>,
}

type Answered = oneshot::Receiver<Result<Reply, Error>>;

/// A multi that was sent.
#[derive(Debug)]
pub struct PendingMulti {
    answered: Answered,
    client: Client,
}

impl PendingMulti {
    /// What it came to.
    ///
    /// # Errors
    /// As [`Client::multi`].
    pub async fn answer(self) -> Result<MultiReply, Error> {
        let reply = self.answered.await.unwrap_or_else(|_| Err(self.client.why_over()))?;
        let (zxid, Response::Multi(mut results)) = (reply.zxid, reply.response) else {
            return Err(Error::UnexpectedAnswer);
        };
        for (index, result) in results.iter_mut().enumerate() {
            match result {
                // Operations before the one that failed carry Ok.
                MultiResult::Error(code) if !code.is_ok() => {
                    return Err(Error::MultiRefused { index, code: *code, zxid });
                }
                MultiResult::Create(path) | MultiResult::Create2(path, _) => {
                    self.client.shared.root.strip(path);
                }
                _ => {}
            }
        }
        Ok(MultiReply { zxid, results })
    }
}

impl Client {
    /// Opens a session; calls wait until a server has taken it. Must be called inside a tokio runtime.
    #[must_use]
    pub fn open(config: Config) -> Self {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (state_sender, state) = watch::channel(SessionState::Connecting);
        let contact = Arc::new(Contact::new(Instant::now(), config.session_timeout));
        let root = Root::new(&config.root);
        let reach = Reach::of(&config);
        let session = Session::new(config, state_sender, Arc::clone(&contact));
        let driver = Driver::new(session, reach, receiver);
        let task = Mutex::new(Some(tokio::spawn(driver.run())));
        let next_subscription = AtomicI32::new(1);
        let shared = Shared { root, commands, state, contact, next_subscription, task };
        Self { shared: Arc::new(shared) }
    }

    /// Ends the session, and with it its ephemerals, and waits until the task has ended.
    pub async fn close(&self) {
        // The task may have ended by itself.
        let _ = self.shared.commands.send(Command::Close).await;
        let task = self.shared.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the coordinator client's task has died");
        }
    }

    /// Where the session stands, to be followed.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<SessionState> {
        self.shared.state.clone()
    }

    /// Waits until a server has the session.
    ///
    /// # Errors
    /// [`Error::SessionExpired`] or [`Error::Closed`]; without a server it waits for ever.
    pub async fn connected(&self) -> Result<SessionId, Error> {
        let mut state = self.shared.state.clone();
        loop {
            match *state.borrow_and_update() {
                SessionState::Connected { session } => return Ok(session),
                SessionState::Expired => return Err(Error::SessionExpired),
                SessionState::Closed => return Err(Error::Closed),
                SessionState::Connecting => {}
            }
            state.changed().await.map_err(|_| Error::Closed)?;
        }
    }

    /// When the newest question was asked that the ensemble has answered. The ensemble counted this
    /// session as alive at that moment or later.
    #[must_use]
    pub fn last_contact(&self) -> Instant {
        self.shared.contact.last()
    }

    /// The session time-out that holds: what the last server gave, before that what was asked for.
    #[must_use]
    pub fn session_timeout(&self) -> Duration {
        self.shared.contact.timeout()
    }

    /// Creates a znode that is open to everyone; answers with its path (completed, if sequential).
    ///
    /// # Errors
    /// [`Error::Refused`] with `NodeExists`, `NoNode` (no parent), `NoChildrenForEphemerals`;
    /// [`Error::ConnectionLoss`].
    pub async fn create(
        &self,
        path: &str,
        data: Option<Bytes>,
        mode: CreateMode,
    ) -> Result<(String, Stat), Error> {
        let (path, acl, flags) = (self.full(path), Acl::open(), mode.code());
        let create = CreateRequest { path, data, acl, flags };
        let request = match mode {
            CreateMode::Container => Request::CreateContainer(create),
            _ => Request::Create2(create),
        };
        match self.request(request).await?.1 {
            Response::PathStat(mut path, stat) => {
                self.shared.root.strip(&mut path);
                Ok((path, stat))
            }
            _ => Err(Error::UnexpectedAnswer),
        }
    }

    /// Creates the folder that the configuration names as root.
    ///
    /// # Errors
    /// As [`Client::create_all`].
    pub async fn create_root(&self) -> Result<(), Error> {
        let root = self.shared.root.path();
        if root.is_empty() { Ok(()) } else { self.create_all_of(root, "").await }
    }

    /// Creates persistent znodes without data where there are none, from the top down to `path`.
    ///
    /// # Errors
    /// As [`Client::create`], without `NodeExists`.
    pub async fn create_all(&self, path: &str) -> Result<(), Error> {
        self.create_all_of(path, self.shared.root.path()).await
    }

    async fn create_all_of(&self, path: &str, root: &str) -> Result<(), Error> {
        let ends = path.match_indices('/').map(|(index, _)| index).skip(1).chain([path.len()]);
        for end in ends {
            let path = format!("{root}{}", path.get(..end).unwrap_or(path));
            let flags = CreateMode::Persistent.code();
            let create = CreateRequest { path, data: None, acl: Acl::open(), flags };
            match self.request(Request::Create2(create)).await {
                Ok(_) => {}
                Err(error) if error.is(ErrorCode::NodeExists) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Deletes a znode that has `version`, or any for `None`.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NoNode`, `BadVersion`, `NotEmpty`; [`Error::ConnectionLoss`].
    pub async fn delete(&self, path: &str, version: Option<i32>) -> Result<(), Error> {
        let (path, version) = (self.full(path), version.unwrap_or(-1));
        self.request(Request::Delete(DeleteRequest { path, version })).await.map(|_| ())
    }

    /// The Stat of a znode, if it exists.
    ///
    /// # Errors
    /// Never `NoNode`.
    pub async fn exists(&self, path: &str) -> Result<Option<Stat>, Error> {
        let request = Request::Exists(PathWatch { path: self.full(path), watch: false });
        stat_if_present(self.call(request, Hook::None).await)
    }

    /// As [`Client::exists`], with a one-shot watch of its creation, data and deletion.
    ///
    /// # Errors
    /// As [`Client::exists`].
    pub async fn exists_and_watch(&self, path: &str) -> Result<(Option<Stat>, Watch), Error> {
        let (sender, watch) = Watch::new(self.shared.root.clone());
        let request = Request::Exists(PathWatch { path: self.full(path), watch: true });
        let reply = self.call(request, Hook::OneShot(OneShot::Exist, sender)).await;
        Ok((stat_if_present(reply)?, watch))
    }

    /// A znode's data and Stat.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NoNode`.
    pub async fn get_data(&self, path: &str) -> Result<(Option<Bytes>, Stat), Error> {
        let request = Request::GetData(PathWatch { path: self.full(path), watch: false });
        data_and_stat(self.call(request, Hook::None).await?)
    }

    /// As [`Client::get_data`], with a one-shot watch of its data and deletion.
    ///
    /// # Errors
    /// As [`Client::get_data`]; then there is no watch.
    pub async fn get_data_and_watch(
        &self,
        path: &str,
    ) -> Result<(Option<Bytes>, Stat, Watch), Error> {
        let (sender, watch) = Watch::new(self.shared.root.clone());
        let request = Request::GetData(PathWatch { path: self.full(path), watch: true });
        let reply = self.call(request, Hook::OneShot(OneShot::Data, sender)).await?;
        data_and_stat(reply).map(|(data, stat)| (data, stat, watch))
    }

    /// Replaces the data of a znode that has `version`, or any for `None`; answers with the new Stat.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NoNode`, `BadVersion`; [`Error::ConnectionLoss`].
    pub async fn set_data(
        &self,
        path: &str,
        data: Option<Bytes>,
        version: Option<i32>,
    ) -> Result<Stat, Error> {
        let (path, version) = (self.full(path), version.unwrap_or(-1));
        stat(self.request(Request::SetData(SetDataRequest { path, data, version })).await?.1)
    }

    /// The names (not paths) of a znode's children, and its Stat.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NoNode`.
    pub async fn get_children(&self, path: &str) -> Result<(Vec<String>, Stat), Error> {
        let request = Request::GetChildren2(PathWatch { path: self.full(path), watch: false });
        names_and_stat(self.call(request, Hook::None).await?)
    }

    /// Names of children in ascending order, those behind `after` only (empty for all), at most `count_max` and as
    /// many as the server gives at once; and whether there are more. For znodes with very many children.
    ///
    /// # Errors
    /// As [`Client::get_children`].
    pub async fn get_children_page(
        &self,
        path: &str,
        after: &str,
        count_max: i32,
    ) -> Result<(Vec<String>, bool), Error> {
        let (path, after, prefix) = (self.full(path), after.to_owned(), String::new());
        let page = ChildrenPageRequest { path, after, prefix, count_max };
        match self.call(Request::GetChildrenPage(page), Hook::None).await?.response {
            Response::NamesPage(names, more, _) => Ok((names, more)),
            _ => Err(Error::UnexpectedAnswer),
        }
    }

    /// As [`Client::get_children`], with a one-shot watch of the children and its deletion.
    ///
    /// # Errors
    /// As [`Client::get_children`]; then there is no watch.
    pub async fn get_children_and_watch(
        &self,
        path: &str,
    ) -> Result<(Vec<String>, Stat, Watch), Error> {
        let (sender, watch) = Watch::new(self.shared.root.clone());
        let request = Request::GetChildren2(PathWatch { path: self.full(path), watch: true });
        let reply = self.call(request, Hook::OneShot(OneShot::Children, sender)).await?;
        names_and_stat(reply).map(|(names, stat)| (names, stat, watch))
    }

    /// A znode's access list and Stat.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NoNode`, `NoAuth`.
    pub async fn get_acl(&self, path: &str) -> Result<(Vec<Acl>, Stat), Error> {
        match self.request(Request::GetAcl(self.full(path))).await?.1 {
            Response::AclStat(acl, stat) => Ok((acl, stat)),
            _ => Err(Error::UnexpectedAnswer),
        }
    }

    /// Replaces the access list of a znode whose list has `version`, or any for `None`.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NoNode`, `BadVersion`, `InvalidAcl`; [`Error::ConnectionLoss`].
    pub async fn set_acl(
        &self,
        path: &str,
        acl: Vec<Acl>,
        version: Option<i32>,
    ) -> Result<Stat, Error> {
        let (path, version) = (self.full(path), version.unwrap_or(-1));
        stat(self.request(Request::SetAcl(SetAclRequest { path, acl, version })).await?.1)
    }

    /// Waits until the server has caught up with everything that was written before this call. What
    /// is read afterwards is at least that new.
    ///
    /// # Errors
    /// Only those of the session.
    pub async fn sync(&self, path: &str) -> Result<Zxid, Error> {
        self.request(Request::Sync(self.full(path))).await.map(|(zxid, _)| zxid)
    }

    /// Does all of `ops` or none.
    ///
    /// # Errors
    /// [`Error::MultiRefused`] names the operation that could not be done; [`Error::ConnectionLoss`].
    pub async fn multi(&self, ops: Vec<MultiOp>) -> Result<MultiReply, Error> {
        self.start_multi(ops).await?.answer().await
    }

    /// Sends a multi without waiting for its answer. Several that are started one after the other are
    /// done in that order.
    ///
    /// # Errors
    /// Only those of the session; the others come with the answer.
    pub async fn start_multi(&self, mut ops: Vec<MultiOp>) -> Result<PendingMulti, Error> {
        for op in &mut ops {
            let path = op.path_mut();
            *path = self.full(path);
        }
        let answered = self.start(Request::Multi(ops), Hook::None).await?;
        Ok(PendingMulti { answered, client: self.clone() })
    }

    /// Leaves a persistent watch.
    ///
    /// # Errors
    /// [`Error::Refused`] with `Unimplemented` by servers that have none.
    pub async fn watch(&self, path: &str, mode: AddWatchMode) -> Result<Watch, Error> {
        let (sender, watch) = Watch::new(self.shared.root.clone());
        let request = Request::AddWatch(AddWatchRequest { path: self.full(path), mode });
        self.call(request, Hook::Persistent(mode, sender)).await.map(|_| watch)
    }

    /// Subscribes to the znode at `path` and everything below it: first its state, then every change,
    /// through every reconnect of this session.
    ///
    /// # Errors
    /// [`Error::Refused`] with `Unimplemented` by servers that are not ours.
    pub async fn subscribe(&self, path: &str) -> Result<Subscription, Error> {
        let subscription = self.shared.next_subscription.fetch_add(1, Ordering::Relaxed);
        let (sink, receiver) = SubscriptionSink::new(self.shared.root.clone());
        let request =
            SubscribeRequest { subscription, path: self.full(path), from_zxid: Zxid::ZERO };
        let hook = Hook::Subscribe(subscription, sink);
        self.call(Request::Subscribe(request), hook).await.map(|_| receiver)
    }

    /// Asks the leader to hand its office to the server `to`, or to the most suitable one for `None`, and waits
    /// until that is so, or is known not to be.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NoAuth` for who may not write `/zookeeper/config`, with `Unimplemented` by servers
    /// that are not ours; [`Error::ConnectionLoss`].
    pub async fn transfer_leader(&self, to: Option<i32>) -> Result<TransferAnswer, Error> {
        let request = TransferRequest { to: to.unwrap_or(0) };
        match self.request(Request::TransferLeader(request)).await?.1 {
            Response::Transfer(answer) => Ok(answer),
            _ => Err(Error::UnexpectedAnswer),
        }
    }

    /// Changes the members of the ensemble: `joining` are added or changed (`server.N=host:port:port:role;client`,
    /// separated by commas), `leaving` are removed (ids, likewise). Answers with the new configuration, once it is in
    /// force.
    ///
    /// # Errors
    /// [`Error::Refused`] with `ReconfigDisabled`, `ReconfigInProgress`, `BadArguments`, `NoAuth`, and
    /// `NewConfigNoQuorum` when a new server did not catch up in time: it is out again; [`Error::ConnectionLoss`].
    pub async fn reconfig(
        &self,
        joining: Option<String>,
        leaving: Option<String>,
    ) -> Result<(String, Stat), Error> {
        let request = ReconfigRequest {
            joining_servers: joining,
            leaving_servers: leaving,
            new_members: None,
            config_id: -1,
        };
        match self.request(Request::Reconfig(request)).await?.1 {
            Response::DataStat(Some(text), stat) => {
                Ok((String::from_utf8_lossy(&text).into_owned(), stat))
            }
            _ => Err(Error::UnexpectedAnswer),
        }
    }

    /// Who is in the ensemble and who leads it, as the server sees it that has the session, and the last write
    /// that this server had applied.
    ///
    /// # Errors
    /// [`Error::Refused`] with `Unimplemented` by servers that are not ours.
    pub async fn describe_ensemble(&self) -> Result<(EnsembleInfo, Zxid), Error> {
        match self.request(Request::DescribeEnsemble).await? {
            (zxid, Response::Ensemble(info)) => Ok((info, zxid)),
            _ => Err(Error::UnexpectedAnswer),
        }
    }

    /// Any request without a watch, for what has no method of its own; paths are sent as they are,
    /// without the configured root. Answers with the last write that the server had applied, and the
    /// body.
    ///
    /// # Errors
    /// [`Error::Refused`], those of the session, and [`Error::ConnectionLoss`] if it is a write.
    pub async fn request(&self, request: Request) -> Result<(Zxid, Response), Error> {
        self.call(request, Hook::None).await.map(|reply| (reply.zxid, reply.response))
    }

    async fn call(&self, request: Request, hook: Hook) -> Result<Reply, Error> {
        let answered = self.start(request, hook).await?;
        answered.await.unwrap_or_else(|_| Err(self.why_over()))
    }

    async fn start(&self, request: Request, hook: Hook) -> Result<Answered, Error> {
        let (answer, answered) = oneshot::channel();
        let call = Call { request, hook, answer: Some(answer), made_at: Instant::now() };
        match self.shared.commands.send(Command::Call(call)).await {
            Ok(()) => Ok(answered),
            Err(_) => Err(self.why_over()),
        }
    }

    fn full(&self, path: &str) -> String {
        self.shared.root.join(path)
    }

    fn why_over(&self) -> Error {
        match *self.shared.state.borrow() {
            SessionState::Expired => Error::SessionExpired,
            _ => Error::Closed,
        }
    }
}

fn stat(response: Response) -> Result<Stat, Error> {
    match response {
        Response::Stat(stat) => Ok(stat),
        _ => Err(Error::UnexpectedAnswer),
    }
}

fn stat_if_present(reply: Result<Reply, Error>) -> Result<Option<Stat>, Error> {
    match reply {
        Ok(reply) => stat(reply.response).map(Some),
        Err(error) if error.is(ErrorCode::NoNode) => Ok(None),
        Err(error) => Err(error),
    }
}

fn data_and_stat(reply: Reply) -> Result<(Option<Bytes>, Stat), Error> {
    match reply.response {
        Response::DataStat(data, stat) => Ok((data, stat)),
        _ => Err(Error::UnexpectedAnswer),
    }
}

fn names_and_stat(reply: Reply) -> Result<(Vec<String>, Stat), Error> {
    match reply.response {
        Response::NamesStat(names, stat) => Ok((names, stat)),
        _ => Err(Error::UnexpectedAnswer),
    }
}
