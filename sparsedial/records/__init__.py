"""What commands and programs exchange as frozen records: Run, Law, Profile, Plan, Verdict, Study, Setting, dry run."""
