-- A database of version 1, as it was once made and filled: what a server of today must be able to start on.
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;

CREATE TABLE user (
  id INTEGER PRIMARY KEY,
  username TEXT NOT NULL, email TEXT NOT NULL, first_name TEXT NOT NULL, last_name TEXT NOT NULL,
  phone TEXT NOT NULL, user_type TEXT NOT NULL,
  standing INTEGER NOT NULL,              -- 0 active, 1 inactive, 2 deleted
  password TEXT,                          -- Django's encoding
  further TEXT NOT NULL                   -- JSON object
) STRICT;
CREATE INDEX user_by_username ON user (username);

CREATE TABLE property (
  id INTEGER PRIMARY KEY,
  owner INTEGER NOT NULL, agent INTEGER,
  kind TEXT NOT NULL, address TEXT NOT NULL, price REAL, bedrooms INTEGER,
  is_active INTEGER NOT NULL,
  further TEXT NOT NULL                   -- JSON object
) STRICT;
CREATE INDEX property_by_owner ON property (owner);
CREATE INDEX property_by_agent ON property (agent) WHERE agent IS NOT NULL;

CREATE TABLE matches (
  id INTEGER PRIMARY KEY,
  property INTEGER NOT NULL, tenant INTEGER NOT NULL,
  score REAL NOT NULL,
  status INTEGER NOT NULL,                -- 0 suggested, 1 pending, 2 accepted, 3 rejected by tenant, 4 by owner
  reason TEXT, metadata TEXT NOT NULL,
  created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX match_by_pair ON matches (property, tenant);
CREATE INDEX match_by_tenant ON matches (tenant);

CREATE TABLE general (                    -- what the backend said, once for all whom one call named
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL, title TEXT NOT NULL, message TEXT NOT NULL, data TEXT NOT NULL,
  shared_by INTEGER NOT NULL              -- notifications that show it; it goes with the last of them
) STRICT;

CREATE TABLE notification (
  id INTEGER PRIMARY KEY,                 -- commit order
  user INTEGER NOT NULL,
  channel INTEGER NOT NULL,               -- 0 property, 1 tenant
  kind INTEGER NOT NULL,                  -- 0 like, 1 accepted, 2 accepted by owner, 3 rejected by owner, 4 general
  created_ms INTEGER NOT NULL, delivered_ms INTEGER, read_ms INTEGER,
  skipped INTEGER,                        -- 1: left the push path undelivered
  uuid BLOB,                              -- only one that is not made from the id
  property INTEGER, home_kind TEXT, address TEXT,
  person INTEGER, username TEXT, email TEXT, first_name TEXT, last_name TEXT, phone TEXT, user_type TEXT,
  score REAL,
  general INTEGER
) STRICT;
CREATE INDEX notification_by_user ON notification (user);
CREATE UNIQUE INDEX notification_by_foreign_uuid ON notification (uuid) WHERE uuid IS NOT NULL;

CREATE TABLE idempotency (
  caller INTEGER NOT NULL, key TEXT NOT NULL,
  fingerprint INTEGER NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL, created_ms INTEGER NOT NULL,
  PRIMARY KEY (caller, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_ms);

INSERT INTO user VALUES (1, 'maria', 'm@example.com', 'María', '', '+1', 'propietario', 0, NULL, '{}'),
  (2, 'juan_perez', '', 'Juan', '', '', 'inquilino', 0, 'pbkdf2_sha256$1000$c2FsdA$x', '{"further":[1]}'),
  (3, '', '', '', '', '', '', 2, NULL, '{}');
INSERT INTO property VALUES (10, 1, NULL, 'departamento', 'Av. Siempre Viva 10', 2.5, 1, 1, '{}');
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
  INSERT INTO matches SELECT i, 10, 100 + i, i / 4.0, 1, NULL, '{}', i, i FROM n;
INSERT INTO general VALUES (1, 'promo', 't', 'para todos', '{}', 100);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
  INSERT INTO notification (id, user, channel, kind, created_ms, delivered_ms, property, home_kind, address, person, username)
  SELECT i, 1 + i % 2, i % 2, 0, 1700000000000 + i, iif(i < 300, 1700000001000, NULL), 10, 'casa', hex(randomblob(60)), 100 + i, 'u' || i FROM n;
INSERT INTO notification (id, user, channel, kind, created_ms, uuid, general)
  SELECT 600 + id, 1, 0, 4, created_ms, randomblob(16), 1 FROM notification WHERE id <= 100;
INSERT INTO meta VALUES ('last_match', 300);
INSERT INTO idempotency VALUES (2, 'k', 7, 200, '{}', 1);
PRAGMA application_id = 1212306500;
PRAGMA user_version = 1;
COMMIT;
