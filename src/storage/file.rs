pub struct DatabaseFile;
pub enum OpenError {
    Environment(String),
}
impl DatabaseFile {
    pub fn path(&self) -> &std::path::Path {
        todo!()
    }
    pub fn connect(&self) -> Result<rusqlite::Connection, OpenError> {
        todo!()
    }
}
pub fn connect_to_read(_: &std::path::Path) -> Result<rusqlite::Connection, OpenError> {
    todo!()
}
pub fn explain(_: &std::path::Path, _: &rusqlite::Error) -> OpenError {
    todo!()
}
